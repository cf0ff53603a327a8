"""Units of pruning: how a weight splits into structures that live or die as one.

A convolution's weight has shape (filters, channels, height, width), a Linear's (outputs, inputs). `Rows` and `Cols`
are those of the matrix that the input is multiplied with (the stored weight transposed): a row is an input, a column
an output, in pruners, regularizers and tables alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

RankedGroup = Literal["2D", "3D", "Filters", "Channels", "Rows", "Cols", "Blocks", "Coupled"]
"""The groups of which a weight has many, so that they can be ranked."""
PlainGroup = Literal["2D", "3D", "Filters", "Channels", "Rows", "Cols", "4D"]
"""The groups that need nothing but the weight."""


@dataclass(frozen=True)
class Group:
    """A way to split weights.

    Attributes:
        kept: the dimensions of a weight that count its structures; a structure runs along all others.
        min_rank: how many dimensions a weight needs.
        output: whether a structure is all that makes one output channel.
        block: sizes of the block that is one index of each dimension, from the first on; 1 for those left out.
    """

    kept: tuple[int, ...]
    min_rank: int
    output: bool = False
    block: tuple[int, ...] = ()

    def view(self, weight: Tensor) -> Tensor:
        """Return the weight with its blocks' insides as dimensions of their own: without a block the weight itself."""
        return weight.reshape(self._split_shape(weight.shape)) if self.block else weight

    def inside(self, rank: int) -> tuple[int, ...]:
        """Return the dimensions of `view` that a structure runs along, for a weight of `rank` dimensions."""
        if self.block:
            return tuple(range(1, 2 * rank, 2))
        return tuple(dim for dim in range(rank) if dim not in self.kept)

    def split(self, weight: Tensor) -> Tensor:
        """Return the structures of a weight: (structures, elements of each)."""
        view, inside = self.view(weight), self.inside(weight.dim())
        outside = [dim for dim in range(view.dim()) if dim not in inside]
        return view.permute(*outside, *inside).reshape(self.count(weight.shape), -1)

    def count(self, shape: torch.Size) -> int:
        """Return how many structures a weight has."""
        sizes, inside = self._split_shape(shape) if self.block else tuple(shape), self.inside(len(shape))
        return prod(size for dim, size in enumerate(sizes) if dim not in inside)

    def expand(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Return one value per structure, spread over a weight: a tensor of its shape."""
        sizes, inside = self._split_shape(shape) if self.block else tuple(shape), self.inside(len(shape))
        thin = [1 if dim in inside else size for dim, size in enumerate(sizes)]
        return values.reshape(thin).expand(sizes).reshape(shape)

    def _split_shape(self, shape: torch.Size) -> tuple[int, ...]:
        block = (*self.block, *[1] * (len(shape) - len(self.block)))
        return tuple(part for size, step in zip(shape, block, strict=True) for part in (size // step, step))


FILTERS = Group((0,), min_rank=2, output=True)
CHANNELS = Group((1,), min_rank=2)
KERNELS = Group((0, 1), min_rank=3)
LAYER = Group((), min_rank=1)

GROUPS: dict[str, Group] = {
    "2D": KERNELS,
    "3D": FILTERS,
    "Filters": FILTERS,
    "Channels": CHANNELS,
    "Rows": CHANNELS,
    "Cols": FILTERS,
    "4D": LAYER,
}


def find_group(group_type: str, kwargs: Mapping[str, Any] | None = None) -> Group:
    """Return the group of a name; `Blocks` takes `kwargs: {block_shape: [filters, channels, height, width]}`.

    Raises:
        ValueError: there is no such group, or its `kwargs` are not its own.
    """
    problem = kwargs_problem(group_type, kwargs)
    if problem:
        raise ValueError(problem)
    if kwargs:
        return Group((), min_rank=len(kwargs["block_shape"]), block=tuple(kwargs["block_shape"]))
    if group_type not in GROUPS:
        raise ValueError(f"no group type {group_type!r} here: one of {', '.join(GROUPS)}")
    return GROUPS[group_type]


def oriented(group: Group, name: str, model: nn.Module) -> Group:
    """Return the group as it lies in a parameter: a transposed convolution stores (inputs, outputs, ...)."""
    owner = model.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, _ConvTransposeNd) and len(group.kept) == 1:
        return replace(group, kept=(1 - group.kept[0],))
    return group


def kwargs_problem(group_type: str, kwargs: Mapping[str, Any] | None) -> str | None:
    """Return what is wrong with the `kwargs` of a group, or None."""
    if group_type != "Blocks":
        return f"kwargs are for Blocks; {group_type} takes none" if kwargs else None
    shape = (kwargs or {}).get("block_shape")
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not shape or set(kwargs or ()) != {"block_shape"}:
        return "Blocks needs kwargs: {block_shape: [filters, channels, height, width]} and nothing else"
    if not all(isinstance(size, int) and size > 0 for size in shape):
        return f"block_shape must be whole numbers above 0, not {list(shape)}"
    return None


def shape_problem(group: Group, what: str, name: str, shape: torch.Size) -> str | None:
    """Return why a weight cannot be split so, or None where it can."""
    if len(shape) < group.min_rank:
        return f"{what} needs a weight of {group.min_rank} dimensions or more; {name} has shape {tuple(shape)}"
    if 0 in shape:
        return f"{name} of shape {tuple(shape)} has no elements"
    if any(size % step for size, step in zip(shape, group.block, strict=False)):
        return f"blocks of {list(group.block)} do not divide {name} of shape {tuple(shape)}"
    return None


def rank_problem(group_type: str, name: str, shape: torch.Size) -> str | None:
    """Return why a weight cannot be split into the named groups, or None where it can."""
    return shape_problem(GROUPS[group_type], group_type, name, shape)


def placed(group: Group, name: str, shapes: Mapping[str, torch.Size]) -> Group:
    """Return the group as it lies in a parameter, where the shapes are those of a model."""
    model = getattr(shapes, "model", None)
    return group if model is None else oriented(group, name, model)
