"""How far apart are two outputs?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

HUGE, SAMPLE = 1e4, 1_000_000


def relative_difference(before: Sequence[Sequence[Tensor]], after: Sequence[Sequence[Tensor]]) -> float:
    """Return the largest max |difference| / max |output| over all outputs; infinite where shapes or NaNs differ."""
    worst = 0.0
    for mine, other in zip(before, after, strict=True):
        if len(mine) != len(other):
            return float("inf")
        worst = max([worst, *(difference(a, b) for a, b in zip(mine, other, strict=True))])
    return worst


def difference(a: Tensor, b: Tensor) -> float:
    """Return the ratio max |a - b| / max |a| of two tensors.

    Elements of more than 10,000 times the median (a -1e9 that masks logits) are compared with their like alone: beside
    them all others would be nothing.
    """
    if a.shape != b.shape or a.numel() == 0:
        return 0.0 if a.shape == b.shape else float("inf")
    a, b = (t.to(torch.complex128) if t.is_complex() else t.double() for t in (a, b))
    # Infinities and NaN of both are equal; of one alone the difference is NaN, which counts as infinite below.
    same = (a == b) | (a.isnan() & b.isnan())
    gaps = torch.where(same, torch.zeros_like(a), a - b).abs().flatten()
    sizes = torch.where(a.isfinite(), a, torch.zeros_like(a)).abs().flatten()
    # Relative to the largest output, since sums round relative to their largest terms; to the element itself, an output
    # near 0 would fail for rounding alone.
    huge = sizes > HUGE * _median(sizes)
    parts = [(gaps[part], sizes[part]) for part in (huge, ~huge) if bool(part.any())]
    results = [float(gap.max() / size.max()) if float(size.max()) > 0 else float(gap.max()) for gap, size in parts]
    return float("inf") if any(map(math.isnan, results)) else max(results)


def _median(sizes: Tensor) -> float:
    """Return the median of those that are not 0, of a sample where they are many."""
    # Evenly spaced, not random: the same two outputs must always give the same number.
    some = sizes[:: max(1, sizes.numel() // SAMPLE)]
    some = some[some > 0]
    return float(some.median()) if some.numel() else math.inf
