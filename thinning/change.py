"""Changes to a model, its masks and its optimizer that can be taken back."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import ThinningError
from .recipe_data import TensorChange
from .resize import replace_data


class Changes:
    """Carries changes out and remembers how to undo them."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def roll_back(self) -> None:
        """Undo everything, last change first."""
        while self._undo:
            self._undo.pop()()

    def forget(self) -> None:
        """Keep the changes, and free what was kept to undo them."""
        self._undo.clear()

    def tensor(self, tensor: Tensor, change: TensorChange) -> None:
        """Slice a parameter or buffer and its gradient; the object stays the same."""
        data, grad = tensor.data, tensor.grad
        new = like_layout(change.select(data), data)
        gradient = None if grad is None else like_layout(change.select(grad.detach()), grad)
        self._undo.append(lambda: _put(tensor, data, grad))
        _put(tensor, new, gradient)

    def attribute(self, module: nn.Module, name: str, value: Any) -> None:
        """Set an attribute of a module."""
        old = getattr(module, name)
        self._undo.append(lambda: setattr(module, name, old))
        setattr(module, name, value)

    def add(self, tensor: Tensor, amounts: Tensor) -> None:
        """Add to a vector, in new memory."""
        data = tensor.data
        self._undo.append(lambda: setattr(tensor, "data", data))
        tensor.data = (data.double() + amounts.to(data.device)).to(data.dtype)

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


def _put(tensor: Tensor, data: Tensor, grad: Tensor | None) -> None:
    replace_data(tensor, data)
    tensor.grad = grad


def like_layout(new: Tensor, old: Tensor) -> Tensor:
    """Keep the memory format (channels last) of the tensor that this was sliced from."""
    for layout, ndim in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if old.ndim == ndim and old.is_contiguous(memory_format=layout) and not old.is_contiguous():
            return new.contiguous(memory_format=layout)
    return new.contiguous()


def _state_slice(value: Tensor, change: TensorChange, what: str) -> Tensor:
    if value.ndim != len(change.shape) or any(a not in (1, b) for a, b in zip(value.shape, change.shape, strict=True)):
        raise ThinningError(
            f"{what} of '{change.name}' has shape {list(value.shape)}, the parameter {list(change.shape)}:"
            " it cannot be sliced"
        )
    keep = {dim: kept for dim, kept in change.keep.items() if value.shape[dim] == change.shape[dim]}
    return like_layout(TensorChange(change.name, change.shape, keep).select(value), value)
