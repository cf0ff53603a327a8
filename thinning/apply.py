"""Carry a recipe out on a model, its masks and its optimizer."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .change import Changes, like_layout
from .copying import named_tensors
from .errors import ThinningError
from .recipe_data import AttributeChange, RecipeData
from .resize import sizes_of
from .trace import aliases_of


@torch.no_grad()
def apply(recipe: RecipeData, model: nn.Module, masks: Any = None, optimizer: Optimizer | None = None) -> None:
    """See `Recipe.apply`."""
    changes = Changes()
    try:
        carry_out(changes, recipe, model, masks, optimizer)
    except Exception:
        changes.roll_back()
        raise


@torch.no_grad()
def carry_out(changes: Changes, recipe: RecipeData, model: nn.Module, masks: Any, optimizer: Optimizer | None) -> None:
    """Apply a recipe through `changes`, so that it can be taken back."""
    tensors = named_tensors(model)
    _check(recipe, model, tensors)
    before = _held(optimizer, model)
    for change in recipe.tensors:
        tensor = tensors[change.name]
        changes.tensor(tensor, change)
        if optimizer is not None:
            changes.state(optimizer, tensor, change)
    for fold in recipe.folds:
        changes.add(tensors[fold.name], fold.amounts)
    for attribute in recipe.attributes:
        _set(changes, model.get_submodule(attribute.module), attribute)
    for module in model.modules():
        for name, value in sizes_of(module).items():
            if getattr(module, name, value) != value:
                changes.attribute(module, name, value)
    _mask(changes, recipe, model, masks)
    if _held(optimizer, model) != before:
        raise ThinningError("the optimizer no longer holds the model's parameters")


def _check(recipe: RecipeData, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    for change in recipe.tensors:
        if change.name not in tensors:
            raise ThinningError(f"the recipe is for another model: it has no '{change.name}'")
        if tuple(tensors[change.name].shape) != change.shape:
            found = list(tensors[change.name].shape)
            raise ThinningError(f"the recipe expects '{change.name}' of shape {list(change.shape)}, found {found}")
    shapes = {change.name: change.new_shape for change in recipe.tensors}
    for fold in recipe.folds:
        shape = shapes.get(fold.name, tuple(tensors[fold.name].shape) if fold.name in tensors else None)
        if shape != tuple(fold.amounts.shape):
            raise ThinningError(f"the recipe adds {len(fold.amounts)} constants to '{fold.name}' of shape {shape}")
    for attribute in recipe.attributes:
        try:
            found_value = getattr(model.get_submodule(attribute.module), attribute.name)
        except AttributeError as error:
            raise ThinningError(f"the recipe is for another model: {error}") from error
        if not isinstance(found_value, (int, tuple, list)):
            raise ThinningError(f"'{attribute.module}.{attribute.name}' is no integer or tuple of them")


def _set(changes: Changes, module: nn.Module, attribute: AttributeChange) -> None:
    value: Any = attribute.new
    if attribute.index is not None:
        old = getattr(module, attribute.name)
        value = type(old)([attribute.new if i == attribute.index else item for i, item in enumerate(old)])
    changes.attribute(module, attribute.name, value)


def _mask(changes: Changes, recipe: RecipeData, model: nn.Module, masks: Any) -> None:
    """Slice masks: a mapping from name to tensor in place, anything else by its `reshape(selectors)`."""
    if masks is None:
        return
    if not isinstance(masks, MutableMapping):
        masks.reshape(recipe.selectors())
        return
    names = {change.name: [change.name] for change in recipe.tensors}
    for alias, name in aliases_of(model).items():
        names.get(name, []).append(alias)
    for change in recipe.tensors:
        for name in names[change.name]:
            mask = masks.get(name)
            if isinstance(mask, Tensor):
                if tuple(mask.shape) != change.shape:
                    shapes = f"{list(mask.shape)}, the parameter {list(change.shape)}"
                    raise ThinningError(f"the mask of '{name}' has shape {shapes}")
                changes.entry(masks, name, like_layout(change.select(mask), mask))
    tensors = named_tensors(model)
    for fold in recipe.folds:  # what took a constant is no zero any more
        mask = masks.get(fold.name)
        if isinstance(mask, Tensor):
            changes.entry(masks, fold.name, mask.where(tensors[fold.name] == 0, torch.ones_like(mask)))


def _held(optimizer: Optimizer | None, model: nn.Module) -> list[int]:
    """The optimizer's parameters by identity; those of another copy of the model are an error."""
    if optimizer is None:
        return []
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    strangers = [i for i in held if i not in own]
    missing = [name for i, name in own.items() if i not in set(held) and model.get_parameter(name).requires_grad]
    if strangers and missing:
        raise ThinningError(
            f"the optimizer holds {len(strangers)} tensors that are not the model's, not '{missing[0]}': it was made"
            " for another copy of the model, and what is thinned would stop learning"
        )
    return held
