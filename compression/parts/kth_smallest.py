"""The k-th smallest absolute value over many tensors, without a copy of them: radix selection on the bits.

The bits of |x|, read as an integer, order floating-point numbers as their values do. Counting 16 of them at a time,
from the highest on, finds the value in two passes for float32, with memory for one chunk and one histogram.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..processes.shards import add_parts, first_sharded, parts

DIGIT = 16
CHUNK = 1 << 20
LANE = torch.int16
ALL, MAGNITUDE = 0xFFFF, 0x7FFF  # of 16 bits: all of them, and all but the sign


@dataclass(frozen=True)
class Cut:
    """Where to cut the ordered absolute values.

    Attributes:
        value: the k-th smallest absolute value.
        ties: how many of the values equal to it belong to the k smallest.
    """

    value: float
    ties: int


def kth_smallest(tensors: Sequence[Tensor], k: int) -> Cut:
    """Return the k-th smallest absolute value (k counts from 1) over all tensors.

    On several devices, or all of them sharded.

    Tensors of different types are compared exactly, as their common wider type.

    Raises:
        ValueError: there are fewer than k values, or one is not a number.
    """
    # Sorting needs a copy of all weights and their order, 12 bytes each; two passes over the bits need none, and read
    # memory in its order.
    total = sum(tensor.numel() for tensor in tensors)
    sharded = first_sharded(tensors)
    tensors = parts(tensors)
    if not 1 <= k <= total:
        raise ValueError(f"there is no {k}th smallest of {total} values")
    kind = _common_type(tensors)
    prefix: list[int] = []
    rank = k
    # Two passes for float32, one for half precision, four for float64: each finds the next 16 bits of the result.
    for _ in range(kind.itemsize // LANE.itemsize):
        counts = _of_all(sum(_histogram(tensor, kind, prefix) for tensor in tensors), sharded, tensors[0].device)
        # Of IEEE 754 numbers NaN alone has all bits of the exponent set and more: its first digit is above infinity's.
        if not prefix and counts[_highest_number(kind) + 1 :].any():
            raise ValueError("absolute values that are not numbers (NaN) cannot be ranked")
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, rank))  # the first digit up to which there are `rank` values or more
        # From here on only values with these highest digits count, and the rank is among them.
        rank -= int(below[digit] - counts[digit])
        prefix.append(digit)
    # What is left of the rank counts the values that equal the result, up to k: where ties are to be cut.
    # The lowest 16 bits lie first in memory (little endian), and the highest were found first.
    lanes = torch.tensor(prefix[::-1], device="cpu").to(LANE)
    return Cut(float(lanes.view(kind)), rank)


def _of_all(counts: Any, sharded: Tensor | None, device: torch.device) -> Any:
    """Return the counts of all processes, where tensors are sharded: 512 KiB."""
    if sharded is None:
        return counts
    return add_parts(torch.from_numpy(counts).to(device), sharded).cpu().numpy()


def chunks(tensor: Tensor, size: int = CHUNK) -> Iterator[Tensor]:
    """Yield views of consecutive elements, in memory order where the tensor is dense (a copy where it is not)."""
    flat = tensor.detach()
    # Order does not matter to a histogram: channels-last weights are read as they lie, without a copy.
    if not flat.is_contiguous():
        order = sorted(range(flat.dim()), key=flat.stride, reverse=True)
        flat = flat.permute(order)
    return iter(flat.reshape(-1).split(size))


def _common_type(tensors: Iterable[Tensor]) -> torch.dtype:
    kinds = {tensor.dtype for tensor in tensors}
    result = kinds.pop()
    for kind in kinds:
        result = torch.promote_types(result, kind)
    if not result.is_floating_point:
        raise ValueError(f"only floating-point numbers are ranked, not {result}")
    return result


def _highest_number(kind: torch.dtype) -> int:
    """Return the highest digit of infinity; that of NaN is above it."""
    return int(torch.tensor([torch.inf], dtype=kind, device="cpu").view(LANE)[-1])


def _histogram(tensor: Tensor, kind: torch.dtype, prefix: Sequence[int]) -> Any:
    """Return how many absolute values have each next digit, among those whose highest digits are `prefix`."""
    counts = np.zeros(1 << DIGIT, dtype=np.int64)
    for chunk in chunks(tensor) if tensor.numel() else ():
        lanes = chunk.to(kind).view(LANE).view(len(chunk), -1)
        counts += _count_by_numpy(lanes, prefix) if lanes.is_cpu else _count(lanes, prefix).cpu().numpy()
    return counts


def _count(lanes: Tensor, prefix: Sequence[int]) -> Tensor:
    # The sign is the highest bit of the last lane: without it the bits are those of |x|.
    digits = lanes[:, -1] & MAGNITUDE
    if prefix:
        fits = digits == prefix[0]
        for place, digit in enumerate(prefix[1:], 2):
            fits &= lanes[:, -place].int() & ALL == digit
        digits = lanes[:, -1 - len(prefix)][fits].int() & ALL
    return torch.bincount(digits, minlength=1 << DIGIT)


def _count_by_numpy(lanes: Tensor, prefix: Sequence[int]) -> Any:
    """Return the same on the CPU, where torch's threads cost more than they bring to chunks of this size."""
    parts = lanes.numpy().view(np.uint16)
    digits = parts[:, -1] & MAGNITUDE
    if prefix:
        fits = digits == prefix[0]
        for place, digit in enumerate(prefix[1:], 2):
            fits &= parts[:, -place] == digit
        digits = parts[:, -1 - len(prefix)][fits]
    return np.bincount(digits, minlength=1 << DIGIT)
