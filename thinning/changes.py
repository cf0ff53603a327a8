"""What a recipe changes, as data: slices of tensors, sizes of modules, constants, scales of norms and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .errors import ThinningError
from .kept_ranges import kept_count
from .names import normalise


class Named:
    """A change of a tensor that the model knows by a name."""

    name: str

    @property
    def what(self) -> str:
        """Return what is changed, by the same name in wrapped and bare models."""
        return normalise(self.name)


@dataclass(frozen=True)
class TensorChange(Named):
    """A parameter or buffer of shape `shape`, and the indices that stay (ascending) along some dimensions."""

    name: str
    shape: tuple[int, ...]
    keep: Mapping[int, Tensor]

    @property
    def new_shape(self) -> tuple[int, ...]:
        """Return the shape afterwards."""
        return tuple(kept_count(self.keep, dim) if dim in self.keep else size for dim, size in enumerate(self.shape))

    def select(self, tensor: Tensor) -> Tensor:
        """Return what stays of a tensor of the parameter's old shape (a gradient, a mask, an optimizer's state)."""
        for dim, kept in self.keep.items():
            tensor = tensor.index_select(dim, kept.to(tensor.device))
        return tensor

    def then(self, other: TensorChange) -> TensorChange:
        """Return the change that does this one and then another.

        Raises:
            ThinningError: the other is of another shape than this one leaves.
        """
        if other.shape != self.new_shape:
            shapes = f"{list(self.new_shape)}, the next begins with {list(other.shape)}"
            raise ThinningError(f"recipes that do not follow each other: the first leaves '{self.name}' of {shapes}")
        keep = dict(self.keep)
        for dim, kept in other.keep.items():
            # Indices of the second are places among those that the first kept.
            keep[dim] = keep[dim][kept] if dim in keep else kept
        return tensor_change(self.name, self.shape, keep)


@dataclass(frozen=True)
class AttributeChange:
    """An integer (or tuple of integers) that a module keeps; element `index` of it, None for the whole."""

    module: str
    name: str
    index: int | None
    old: int | tuple[int, ...]
    new: int | tuple[int, ...]

    @property
    def what(self) -> tuple[str, str, int | None]:
        """Return what is changed, by the same name in wrapped and bare models."""
        return normalise(self.module), self.name, self.index

    def then(self, other: AttributeChange) -> AttributeChange:
        """Return the change that does this one and then another."""
        return replace(other, old=self.old)


@dataclass(frozen=True)
class Folding(Named):
    """Constants of removed channels: `amounts` are added to the elements of the thinned vector `name`."""

    name: str
    amounts: Tensor

    def then(self, other: Folding) -> Folding:
        """Return the folding that adds both, of a vector that does not shrink in between."""
        return replace(other, amounts=self.amounts + other.amounts)


@dataclass(frozen=True)
class Rescaling(Named):
    """A norm that averages over fewer channels, made up for.

    The weight `name`, to which the norm `module` adds `offset`, is scaled so that the sum is `factor` times what it
    was; `attribute`, which it adds to the mean of the squares, becomes `new` (`old` None: what torch chooses). Of
    norms that share a weight one scales it, and the factor of the others is 1.
    """

    name: str
    factor: float
    offset: float
    module: str
    attribute: str
    old: float | None
    new: float

    @property
    def what(self) -> str:
        """Return what is changed, by the same names in wrapped and bare models."""
        return f"{normalise(self.name)} in {normalise(self.module)}.{self.attribute}"

    def then(self, other: Rescaling) -> Rescaling:
        """Return the rescaling that does this one and then another of the same norm."""
        return replace(other, factor=self.factor * other.factor, old=self.old)

    def scaled(self, weight: Tensor) -> Tensor:
        """Return what becomes of the weight."""
        return scaled(weight, self.factor, self.offset)


@dataclass(frozen=True)
class Magnitude(Named):
    """Weights g v / |v| (weight norm) that lose inputs, made up for: g times |v'| / |v|, where v' is what stays of v.

    `name` is g, `directions` v; each place along `dim` of v has a norm of its own, over all other dimensions.
    """

    name: str
    directions: str
    dim: int

    def then(self, other: Magnitude) -> Magnitude:
        """Return what makes up for both: the other, since factors are of the directions, not kept as numbers."""
        return other

    def factor(self, directions: Tensor, change: TensorChange) -> Tensor:
        """Return |v'| / |v| of the places that stay, in double precision and broadcastable over v; 1 where v is 0."""
        whole = directions.detach().double()
        if self.dim in change.keep:
            whole = whole.index_select(self.dim, change.keep[self.dim].to(whole.device))
        others = [dim for dim in range(whole.ndim) if dim != self.dim]
        before, after = (
            torch.linalg.vector_norm(part, dim=others, keepdim=True)
            for part in (whole, change.select(directions.detach()).double())
        )
        return torch.where(before > 0, after / before, 1.0)


def tensor_change(name: str, shape: tuple[int, ...], keep: Mapping[int, Tensor]) -> TensorChange:
    """Return a change with int64 indices on the CPU."""
    return TensorChange(name, shape, {dim: kept.to("cpu", torch.int64) for dim, kept in sorted(keep.items())})


class Removal(Protocol):
    """What `apply` takes of a recipe."""

    @property
    def tensors(self) -> tuple[TensorChange, ...]:
        """Return what stays of parameters and buffers."""

    @property
    def attributes(self) -> tuple[AttributeChange, ...]:
        """Return the new sizes that modules keep."""

    @property
    def folds(self) -> tuple[Folding, ...]:
        """Return the constants to add."""

    @property
    def biases(self) -> tuple[str, ...]:
        """Return the biases that layers get."""

    @property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """Norms that average over fewer channels."""

    @property
    def magnitudes(self) -> tuple[Magnitude, ...]:
        """Magnitudes of normalised weights that lose inputs."""

    def selectors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return parameter name -> function that selects what stays."""


class Masks(Protocol):
    """Masks that are no plain mapping from name to tensor."""

    def thin(self, recipe: Removal) -> Callable[[], None]:
        """Keep of each mask what is kept of its parameter; return what undoes this."""


def filled(recipe: Removal) -> list[str]:
    """Return the names of the tensors whose zeros a recipe fills."""
    return [fold.name for fold in recipe.folds] + [r.name for r in recipe.rescalings if r.offset]


def scaled(weight: Tensor, factor: float, offset: float) -> Tensor:
    """Return a weight to which its module adds `offset`, such that the sum is `factor` times what it was."""
    # In double precision and rounded once: an addition and a subtraction of the offset in float32 would leave its
    # rounding.
    return ((weight.double() + offset) * factor - offset).to(weight.dtype)
