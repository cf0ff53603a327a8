"""Carry a recipe out on a model, its masks and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .attributes import changed, kept_as
from .changes import Removal, TensorChange, filled
from .errors import ThinningError
from .module_sizes import new_size, replace_data, sizes_of
from .names import spelling
from .new_biases import layer_without, new_bias
from .recipe_checks import held_parameters, must_fit
from .running.copies import aliases_of, named_tensors, renew_caches


class Transaction:
    """Changes models, masks and optimizers, and undoes it all, the last change first, unless it is committed."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        self.roll_back()

    def roll_back(self) -> None:
        """Undo everything."""
        while self._undo:
            self._undo.pop()()

    def commit(self) -> None:
        """Keep the changes, and free what was kept to undo them."""
        self._undo.clear()

    @torch.no_grad()
    def apply(self, recipe: Removal, model: nn.Module, masks: Any, optimizer: Optimizer | None) -> None:
        """Apply a recipe; see `Recipe.apply`."""
        renew_caches(model)
        tensors = named_tensors(model)
        must_fit(recipe, model, tensors)
        # The optimizer's groups hold parameters by identity: data is swapped under them, so that learning rates, groups
        # and schedulers made before go on.
        amounts = {fold.name: fold.amounts for fold in recipe.folds}
        for name in recipe.biases:
            self.bias(layer_without(model, name), len(amounts[name]), optimizer)
        tensors = named_tensors(model)
        before = held_parameters(optimizer, model)
        changes = {change.name: change for change in recipe.tensors}
        # Of the directions as they are here: another copy of the model (an average of weights) has others.
        factors = [(m.name, m.factor(tensors[m.directions], changes[m.directions])) for m in recipe.magnitudes]
        for change in recipe.tensors:
            self.tensor(tensors[change.name], change)
            if optimizer is not None:
                self.state(optimizer, tensors[change.name], change)
        for name, factor in factors:
            self.renew(tensors[name], tensors[name].data.double() * factor)
        self.adjust(recipe, model, tensors)
        for attribute in recipe.attributes:
            module = model.get_submodule(attribute.module)
            value = new_size(kept_as(module, attribute.name), attribute.new, attribute.index)
            self.attribute(module, attribute.name, value)
        for module in model.modules():
            # Sizes of torch's own modules follow from the new shapes and stand in no recipe: one source, nothing to
            # disagree.
            for name, value in sizes_of(module).items():
                if getattr(module, name, value) != value:
                    self.attribute(module, name, value)
        if isinstance(masks, MutableMapping):
            self.masks(masks, recipe, model)
        elif masks is not None:
            self._undo.append(masks.thin(recipe))
        if held_parameters(optimizer, model) != before:
            raise ThinningError("the optimizer no longer holds the model's parameters")

    def adjust(self, recipe: Removal, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Add constants, and make up for channels that norms are without."""
        for fold in recipe.folds:
            vector = tensors[fold.name].data
            self.renew(tensors[fold.name], vector.double() + fold.amounts.to(vector.device))
        for rescaling in recipe.rescalings:
            self.renew(tensors[rescaling.name], rescaling.scaled(tensors[rescaling.name].data))
            self.attribute(model.get_submodule(rescaling.module), rescaling.attribute, rescaling.new)

    def tensor(self, tensor: Tensor, change: TensorChange) -> None:
        """Slice a parameter or buffer and its gradient; the object stays the same."""
        data, grad = tensor.data, tensor.grad
        new = like_layout(change.select(data), data)
        gradient = None if grad is None else like_layout(change.select(grad.detach()), grad)
        self._undo.append(lambda: _put(tensor, data, grad))
        _put(tensor, new, gradient)

    def bias(self, layer: Any, size: int, optimizer: Optimizer | None = None) -> None:
        """Give a layer a bias of zeros, which learns beside the weight."""
        self._undo.append(lambda: layer.register_parameter("bias", None))
        layer.bias = new_bias(layer, size)
        for group in optimizer.param_groups if optimizer is not None else ():
            place = next((i for i, held in enumerate(group["params"], 1) if held is layer.weight), None)
            if place is not None:  # right behind it, where an optimizer that is made anew has it
                self.entry(group, "params", [*group["params"][:place], layer.bias, *group["params"][place:]])

    def attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Set an attribute of a module, or an entry of one (see `attributes`)."""
        for own, new in changed(module, name, value).items():
            self._undo.append(partial(setattr, module, own, getattr(module, own)))
            setattr(module, own, new)

    def fill(self, tensor: Tensor, values: Tensor) -> None:
        """Give a parameter or buffer other values, even of another shape; it stays as sparse as it was."""
        data, grad = tensor.data, tensor.grad
        self._undo.append(lambda: _put(tensor, data, grad))
        values = values.to(tensor.device)
        if tensor.layout == torch.strided:
            replace_data(tensor, values)
        else:
            tensor.data = values.to_sparse(layout=tensor.layout)

    def renew(self, tensor: Tensor, values: Tensor) -> None:
        """Give a tensor other values of the same shape, rounded to its type, in new memory."""
        data = tensor.data
        self._undo.append(lambda: setattr(tensor, "data", data))
        tensor.data = values.to(data.dtype)

    def entry(self, mapping: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        """Replace a value in a mapping."""
        old = mapping[key]
        self._undo.append(lambda: mapping.__setitem__(key, old))
        mapping[key] = value

    def state(self, optimizer: Optimizer, parameter: Tensor, change: TensorChange) -> None:
        """Slice every tensor of an optimizer's state that has the parameter's shape."""
        state = optimizer.state.get(parameter)
        for key, value in list((state or {}).items()):
            if isinstance(value, Tensor) and value.numel() > 1 and state is not None:
                self.entry(state, key, _state_slice(value, change, f"{type(optimizer).__name__} state '{key}'"))
            elif isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) and v.numel() > 1 for v in value):
                raise ThinningError(
                    f"{type(optimizer).__name__} keeps lists of tensors ('{key}') for '{change.name}', which cannot be"
                    " sliced; thin before training with it, or with another optimizer"
                )

    def masks(self, masks: MutableMapping[str, Any], recipe: Removal, model: nn.Module) -> None:
        """Slice the masks of parameters, under all their names; what took a constant is no zero any more."""
        names = {change.name: [change.name] for change in recipe.tensors}
        for alias, name in aliases_of(model).items():
            names.get(name, []).append(alias)
        spell = spelling(masks)
        for change in recipe.tensors:
            for name in map(spell, names[change.name]):
                mask = masks.get(name)
                if isinstance(mask, Tensor):
                    if tuple(mask.shape) != change.shape:
                        shapes = f"{list(mask.shape)}, the parameter {list(change.shape)}"
                        raise ThinningError(f"the mask of '{name}' has shape {shapes}")
                    self.entry(masks, name, like_layout(change.select(mask), mask))
        tensors = named_tensors(model)
        for own in filled(recipe):
            name = spell(own)
            mask = masks.get(name)
            if isinstance(mask, Tensor):
                self.entry(masks, name, mask.where(tensors[own] == 0, torch.ones_like(mask)))


def _put(tensor: Tensor, data: Tensor, grad: Tensor | None) -> None:
    replace_data(tensor, data)
    tensor.grad = grad


def like_layout(new: Tensor, old: Tensor) -> Tensor:
    """Keep the memory format (channels last) of the tensor that this was sliced from."""
    for layout, ndim in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if old.ndim == ndim and old.is_contiguous(memory_format=layout) and not old.is_contiguous():
            # Not `contiguous`, which leaves a single channel the strides of either layout as they are.
            return torch.empty_like(new, memory_format=layout).copy_(new)
    return new.contiguous()


def _state_slice(value: Tensor, change: TensorChange, what: str) -> Tensor:
    if value.ndim != len(change.shape) or any(a not in (1, b) for a, b in zip(value.shape, change.shape, strict=True)):
        raise ThinningError(
            f"{what} of '{change.name}' has shape {list(value.shape)}, the parameter {list(change.shape)}:"
            " it cannot be sliced"
        )
    # Adafactor keeps one number a row: dimensions of size 1 are statistics over it and stay.
    keep = {dim: kept for dim, kept in change.keep.items() if value.shape[dim] == change.shape[dim]}
    return like_layout(TensorChange(change.name, change.shape, keep).select(value), value)


def apply(recipe: Removal, model: nn.Module, masks: Any = None, optimizer: Optimizer | None = None) -> None:
    """Apply a recipe; see `Recipe.apply`."""
    with Transaction() as transaction:
        transaction.apply(recipe, model, masks, optimizer)
        transaction.commit()
