"""Units of pruning: how a weight splits into structures that live or die as one.

A convolution's weight has shape (filters, channels, height, width), a Linear's (outputs, inputs). `Rows` and `Cols`
are those of the matrix that the input is multiplied with (the stored weight transposed): a row is an input, a column
an output, in pruners, regularizers and tables alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """A way to split weights.

    Attributes:
        split: weight -> (structures, elements of each).
        whole: (structures, elements) -> the weight's shape; takes the weight's shape too.
        ranks: what numbers of dimensions a weight may have.
        shape: weight's shape -> shape of the array of its structures.
    """

    split: Callable[[Tensor], Tensor]
    shape: Callable[[torch.Size], tuple[int, ...]]
    min_rank: int
    output: bool = False

    def expand(self, keep: Tensor, shape: torch.Size) -> Tensor:
        """One value per structure, spread over the weight: a tensor that broadcasts to its shape."""
        return keep.reshape(self.shape(shape))


def _filters(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def _channels(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).flatten(1)


FILTERS = Group(_filters, lambda s: (s[0], *[1] * (len(s) - 1)), min_rank=2, output=True)
CHANNELS = Group(_channels, lambda s: (1, s[1], *[1] * (len(s) - 2)), min_rank=2)
KERNELS = Group(lambda w: w.flatten(2).flatten(0, 1), lambda s: (s[0], s[1], *[1] * (len(s) - 2)), min_rank=3)
LAYER = Group(lambda w: w.flatten()[None], lambda s: (1,) * len(s), min_rank=1)
ELEMENTS = Group(lambda w: w.reshape(-1, 1), tuple, min_rank=1)

GROUPS: dict[str, Group] = {
    "Element": ELEMENTS,
    "2D": KERNELS,
    "3D": FILTERS,
    "Filters": FILTERS,
    "Channels": CHANNELS,
    "Rows": CHANNELS,
    "Cols": FILTERS,
    "4D": LAYER,
}


def rank_problem(group_type: str, name: str, shape: torch.Size) -> str | None:
    """Why a weight cannot be split so, or None where it can."""
    needed = GROUPS[group_type].min_rank
    if len(shape) >= needed:
        return None
    return f"{group_type} needs a weight of {needed} dimensions or more; {name} has shape {tuple(shape)}"
