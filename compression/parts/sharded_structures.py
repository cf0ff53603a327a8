"""Structures of weights that several processes share: their scores, and masks for the part that is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..processes.shards import add_parts, is_sharded, largest_of_parts, part, span, with_part
from .scores import Score, l1, l2, largest
from .structures import Group


class Parts(NamedTuple):
    """How a score is made of parts of a structure.

    Attributes:
        element: what each element gives.
        largest: whether the largest of these counts, and not their sum.
        finish: the score of what came together, and of the number of elements.
    """

    element: Callable[[Tensor], Tensor]
    largest: bool
    finish: Callable[[Tensor, int], Tensor]


OF_PARTS: dict[Score, Parts] = {
    l1: Parts(Tensor.abs, False, lambda total, count: total / count),
    l2: Parts(Tensor.square, False, lambda total, count: total.sqrt() / count),
    largest: Parts(Tensor.abs, True, lambda total, count: total),
}


def scored(score: Score, group: Group, weight: Tensor) -> Tensor:
    """Return the score of each structure of a weight, whole or sharded: (structures,), the same on all processes.

    Raises:
        ValueError: the weight is sharded, and it is not known how to make the score of parts.
    """
    if not is_sharded(weight):
        return score(group.split(weight))
    made = OF_PARTS.get(score)
    if made is None:
        raise ValueError(f"{getattr(score, '__name__', score)} needs whole weights, and this one is sharded")
    # Each process sees parts of structures: sums (or the largest) by structure go round, the weights themselves never
    # do.
    found = combined(group, made.element(part(weight).double()), weight, made.largest)
    return made.finish(found, weight.numel() // len(found)).to(weight.dtype)


def summed(group: Group, weight: Tensor) -> Tensor:
    """Return the sum of the elements of each structure: (structures,)."""
    return combined(group, part(weight), weight) if is_sharded(weight) else group.split(weight).sum(1)


def any_in(group: Group, mask: Tensor) -> Tensor:
    """Return whether some element of each structure is True: (structures,)."""
    if not is_sharded(mask):
        return group.split(mask).any(1)
    return combined(group, part(mask).int(), mask, largest=True) > 0


def spread(group: Group, values: Tensor, weight: Tensor) -> Tensor:
    """Return a value for each structure, spread over a weight and placed as it is."""
    if not is_sharded(weight):
        return group.expand(values, weight.shape)
    return with_part(weight, values[_structures(group, weight)].expand(span(weight).size))


def combined(group: Group, local: Tensor, weight: Tensor, largest: bool = False) -> Tensor:
    """Return sums (or the largest) by structure of values for the part that is here, over all parts."""
    found = local.new_zeros(group.count(weight.shape))
    places = _structures(group, weight).expand(local.shape).reshape(-1)
    if largest:
        found.scatter_reduce_(0, places, local.reshape(-1), "amax")
        return largest_of_parts(found, weight)
    return add_parts(found.index_add_(0, places, local.reshape(-1)), weight)


def _structures(group: Group, weight: Tensor) -> Tensor:
    """Return the number of the structure of each element that is here, of a shape that broadcasts to the part."""
    rank, (start, size) = weight.dim(), span(weight)
    block = (*group.block, *[1] * (rank - len(group.block)))
    places, stride = torch.zeros([1] * rank, dtype=torch.int64, device=part(weight).device), 1
    for dim in reversed(range(rank)):
        if group.block or dim in group.kept:
            along = (torch.arange(size[dim], device=places.device) + start[dim]) // block[dim]
            places = places + (along * stride).view([-1 if d == dim else 1 for d in range(rank)])
            # Row-major over the dimensions that tell structures apart, as `Group.split` numbers them on whole weights.
            stride *= weight.shape[dim] // block[dim]
    return places
