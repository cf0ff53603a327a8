"""The k-th smallest of values that lie on several processes: counts of digits are added up, values are not sent."""

from __future__ import annotations

import torch
from torch import Tensor

from .shards import add_parts, part, span, with_part

DIGIT = 8


def keep_highest_sharded(scores: Tensor, prune: int, alive: Tensor | None) -> Tensor:
    """See `keep_highest`: the same mask as of the whole tensor in one process, placed as the scores are.

    Sends 2 KiB for each byte of a score, and as much for each byte of an index where equal scores are divided.
    """
    flat = part(scores).flatten()
    if alive is not None:
        dead = ~part(alive).flatten()
        flat = flat.masked_fill(dead, -torch.inf)
        prune = max(prune, int(add_parts(dead.sum(), scores)))
    if int(add_parts(torch.isnan(flat).sum(), scores)):
        raise ValueError("scores that are not numbers (NaN) cannot be ranked")
    keep = torch.ones_like(flat, dtype=torch.bool)
    if prune > 0:
        # Radix selection as in `kth_smallest`, but on signed scores, and on counts that go round: 256 of them a byte.
        keys, bits = _ordered(flat)
        cut, ties = _select(keys, prune, bits, scores)
        equal = keys == cut
        keep = (keys > cut) | (equal & ~first_of(equal, ties, scores))
    return with_part(scores, keep.view(part(scores).shape))


def first_of(equal: Tensor, number: int, like: Tensor) -> Tensor:
    """Return bool, (elements here,): the first `number` of those that are `equal`, in the whole tensor's order."""
    if int(add_parts(equal.sum(), like)) <= number:
        return equal
    places = _places(equal.nonzero().flatten(), like)
    bits = -(-max(like.numel() - 1, 1).bit_length() // DIGIT) * DIGIT
    cut, _ = _select(places, number, bits, like)
    chosen = torch.zeros_like(equal)
    chosen[equal.nonzero().flatten()[places <= cut]] = True
    return chosen


def _places(local: Tensor, like: Tensor) -> Tensor:
    """Return the flat indices in the whole tensor of flat indices of the part that is here."""
    start, size = span(like)
    rest, place, stride = local, torch.zeros_like(local), 1
    for dim in reversed(range(len(size))):
        place = place + (rest % max(size[dim], 1) + start[dim]) * stride
        rest = rest // max(size[dim], 1)
        stride *= like.shape[dim]
    return place


def _ordered(values: Tensor) -> tuple[Tensor, int]:
    """Return whole numbers in the order of floating-point values, positive but for the sign bit of 64; their bits."""
    width = values.element_size()
    values = torch.where(values == 0, torch.zeros_like(values), values)  # -0.0 is 0.0
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[width]
    bits = values.view(kind).long() if width < 8 else values.view(kind)
    top = 1 << (8 * width - 1)
    # IEEE 754 numbers are ordered by their bits, negative ones the other way round: turn those.
    signed = torch.where(bits < 0, -(bits + top) if width < 8 else bits ^ (top - 1), bits)
    return (signed + top, 8 * width) if width < 8 else (signed, 64)


def _select(keys: Tensor, rank: int, bits: int, like: Tensor) -> tuple[int, int]:
    """Return the key of a rank (from 1) over all processes, and how many equal ones come up to that rank."""
    prefix = 0
    for shift in range(bits - DIGIT, -1, -DIGIT):
        fits = keys if shift + DIGIT == bits else keys[_prefix(keys, shift + DIGIT, bits) == prefix]
        digits = (fits >> shift) & 255
        if bits == 64 and shift == 56:
            digits = digits ^ 128  # negative ones come first
        below = add_parts(torch.bincount(digits, minlength=256), like).cumsum(0)
        digit = int(torch.searchsorted(below, torch.tensor(rank, device=below.device)))
        rank -= int(below[digit - 1]) if digit else 0
        prefix = prefix << DIGIT | digit
    return (prefix - (1 << 63) if bits == 64 else prefix), rank


def _prefix(keys: Tensor, shift: int, bits: int) -> Tensor:
    upper = (keys >> shift) & ((1 << (bits - shift)) - 1)
    return upper ^ (1 << (63 - shift)) if bits == 64 else upper
