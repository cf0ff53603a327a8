"""The data of a recipe: plain values, no behaviour that changes a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FORMAT = "potstill-recipe"
VERSION = 1


@dataclass(frozen=True)
class TensorChange:
    """A parameter or buffer of shape `shape`, and the indices that stay (ascending) along some dimensions."""

    name: str
    shape: tuple[int, ...]
    keep: dict[int, Tensor]

    @property
    def new_shape(self) -> tuple[int, ...]:
        """The shape afterwards."""
        return tuple(len(self.keep[dim]) if dim in self.keep else size for dim, size in enumerate(self.shape))

    def select(self, tensor: Tensor) -> Tensor:
        """What stays of a tensor of the parameter's old shape (a gradient, a mask, an optimizer's state)."""
        for dim, kept in self.keep.items():
            tensor = tensor.index_select(dim, kept.to(tensor.device))
        return tensor


@dataclass(frozen=True)
class AttributeChange:
    """An integer (or tuple of integers) that a module keeps; element `index` of it, None for the whole."""

    module: str
    name: str
    index: int | None
    old: int | tuple[int, ...]
    new: int | tuple[int, ...]


@dataclass(frozen=True)
class Folding:
    """Constants of removed channels: `amounts` are added to the elements of the thinned vector `name`."""

    name: str
    amounts: Tensor


@dataclass(frozen=True)
class Kept:
    """Channels that could not be removed: how many, first use, and why."""

    channels: int
    use: str
    reason: str


@dataclass(frozen=True)
class RecipeData:
    """The fields of a recipe (see `recipe.Recipe`)."""

    model: str
    tensors: tuple[TensorChange, ...] = ()
    attributes: tuple[AttributeChange, ...] = ()
    folds: tuple[Folding, ...] = ()
    frozen: tuple[Kept, ...] = ()
    refused: tuple[Kept, ...] = ()
    notes: tuple[str, ...] = ()
    max_relative_difference: float = 0.0
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    inputs: Any = field(default=None, compare=False)

    @property
    def removes_nothing(self) -> bool:
        """Whether applying this recipe leaves every shape as it is."""
        return not self.tensors

    def selectors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Parameter name -> function that takes a tensor of the old shape to what is kept of it."""
        return {change.name: change.select for change in self.tensors}


def tensor_change(name: str, shape: tuple[int, ...], keep: Mapping[int, Tensor]) -> TensorChange:
    """A change with int64 indices on the CPU."""
    return TensorChange(name, shape, {dim: kept.to("cpu", torch.int64) for dim, kept in sorted(keep.items())})
