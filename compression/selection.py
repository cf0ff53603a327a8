"""Which of the scores are the lowest: exact counts, ties broken by position."""

from __future__ import annotations

import torch
from torch import Tensor


def count(level: float, total: int) -> int:
    """How many of `total` a sparsity takes: floor(level x total), safe against 0.3 x 10 = 2.9999...."""
    return min(total, int(level * total + 1e-9))


def keep_highest(scores: Tensor, prune: int, alive: Tensor | None = None) -> Tensor:
    """Mask (bool, the scores' shape) that is False at exactly `prune` places: at the lowest scores.

    Of equal scores the ones that come first are taken. Where `alive` is False the place counts as lowest of all, so
    that what is pruned stays pruned; if more than `prune` places are not alive, all of them are False.

    Raises:
        ValueError: a score is not a number.
    """
    flat = scores.detach().flatten()
    if torch.isnan(flat).any():
        raise ValueError("scores that are not numbers (NaN) cannot be ranked")
    if alive is not None:
        flat = flat.masked_fill(~alive.flatten(), -torch.inf)
        prune = max(prune, int((~alive).sum()))
    keep = torch.ones_like(flat, dtype=torch.bool)
    if prune <= 0:
        return keep.view_as(scores)
    threshold = flat.kthvalue(prune).values
    keep = flat > threshold
    ties = (flat == threshold).nonzero().flatten()
    spared = prune - int((flat < threshold).sum())
    keep[ties[spared:]] = True
    return keep.view_as(scores)
