"""A dense network that becomes what several recipes, one after the other, have made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .apply import Transaction
from .attributes import epsilon_problem, kept_as, size_problem
from .errors import ThinningError
from .module_sizes import new_size, resize_to
from .names import spelling
from .new_biases import layer_without, outputs_of
from .recipe import Recipe
from .running.copies import named_tensors

Shapes = dict[str, tuple[int, ...]]


def resize_by(model: nn.Module, state_dict: Mapping[str, Tensor], recipes: Sequence[Recipe]) -> nn.Module:
    """Resize a dense model, in place, to the shapes of a thinned one's state dict, with the sizes of its recipes.

    Args:
        model: the dense model.
        state_dict: that of the thinned one.
        recipes: what was removed from it, in order. All are checked before anything is made of them.

    Raises:
        ThinningError: the recipes do not lead from the model's shapes to the state dict's; the model is as it was.
    """
    recipes = [recipe.named_for(model) for recipe in recipes]
    must_lead_to(model, state_dict, recipes)
    with Transaction() as transaction:
        _set_sizes(model, recipes, transaction)
        resize_to(model, state_dict)
        transaction.commit()
    return model


def must_lead_to(model: nn.Module, state_dict: Mapping[str, Tensor], recipes: Sequence[Recipe]) -> None:
    """Check that recipes, one after the other, lead from a dense model's shapes to those of a state dict.

    They are followed back from the state dict: networks that were imported thinned have none for their first steps.

    Raises:
        ThinningError: they do not.
    """
    dense = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    added = {name for recipe in recipes for name in recipe.biases}
    spell = spelling({*dense, *added})
    found = {spell(name): tuple(value.shape) for name, value in state_dict.items() if isinstance(value, Tensor)}
    for recipe in reversed(recipes):
        for change in recipe.tensors:
            left = found.get(change.name, change.new_shape)  # buffers that are not stored
            if change.new_shape != left:
                sizes = f"{list(change.new_shape)}, the state dict has {list(left)}"
                raise ThinningError(f"a recipe leaves '{change.name}' of shape {sizes}")
            if change.name not in added:
                _must_fit(change.name, change.shape, dense)
            found[change.name] = change.shape


def _must_fit(name: str, shape: tuple[int, ...], dense: Shapes) -> None:
    own = dense.get(name)
    if own is None:
        raise ThinningError(f"a recipe is for another model: there is no '{name}'")
    if len(own) != len(shape) or any(size > most for size, most in zip(shape, own, strict=True)):
        raise ThinningError(f"a recipe expects '{name}' of shape {list(shape)}, the model has {list(own)}")


def _set_sizes(model: nn.Module, recipes: Sequence[Recipe], transaction: Transaction) -> None:
    """Give layers the biases that recipes add, and set the attributes as they are after the last recipe."""
    for name in (name for recipe in recipes for name in recipe.biases):
        layer = layer_without(model, name)
        transaction.bias(layer, outputs_of(layer, layer.weight.shape))
    modules = dict(model.named_modules())
    for change in (change for recipe in recipes for change in recipe.attributes):
        module: Any = modules.get(change.module)
        if module is None or kept_as(module, change.name) is None:
            raise ThinningError(f"a recipe is for another model: there is no '{change.module}.{change.name}'")
        problem = size_problem(module, change.name, change.new, change.index)
        if problem:
            raise ThinningError(f"'{change.module}.{change.name}' {problem}")
        transaction.attribute(module, change.name, new_size(kept_as(module, change.name), change.new, change.index))
    for norm in (norm for recipe in recipes for norm in recipe.rescalings):
        module = modules.get(norm.module, model)
        problem = epsilon_problem(module, norm.attribute, norm.new)
        if problem:
            raise ThinningError(f"'{norm.module}.{norm.attribute}' {problem}")
        transaction.attribute(module, norm.attribute, norm.new)
