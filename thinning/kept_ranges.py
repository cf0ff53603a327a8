"""The indices that a recipe keeps of a tensor, as ranges until they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

Ranges = tuple[tuple[int, int], ...]
"""Ascending [first, last + 1] pairs."""


class KeptRanges(Mapping[int, Tensor]):
    """Indices by dimension, made when they are asked for.

    A text of 300 bytes can name 2e9 of them, 16 GB: by then the shapes were compared with the network's.
    """

    def __init__(self, ranges: Mapping[int, Ranges]) -> None:
        """Take ranges by dimension."""
        self.ranges = dict(ranges)

    def __getitem__(self, dim: int) -> Tensor:
        return torch.cat([torch.arange(first, end, device="cpu") for first, end in self.ranges[dim]])

    def __contains__(self, dim: object) -> bool:
        return dim in self.ranges  # a mapping's own way is to make the indices and see

    def __iter__(self) -> Iterator[int]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)


def kept_count(keep: Mapping[int, Tensor], dim: int) -> int:
    """Return how many indices are kept along a dimension."""
    if isinstance(keep, KeptRanges):
        return sum(end - first for first, end in keep.ranges[dim])
    return len(keep[dim])


def kept_ranges(keep: Mapping[int, Tensor], dim: int) -> Ranges:
    """Return the indices that are kept along a dimension as ranges."""
    if isinstance(keep, KeptRanges):
        return keep.ranges[dim]
    kept = keep[dim]
    if not len(kept):
        return ()
    breaks = (kept[1:] != kept[:-1] + 1).nonzero().flatten() + 1
    return tuple((int(part[0]), int(part[-1]) + 1) for part in torch.tensor_split(kept, breaks))
