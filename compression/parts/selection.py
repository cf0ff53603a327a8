"""Which of the scores are the lowest: exact counts, ties broken by position."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["floor", "round", "ceil"]
ROUNDINGS: dict[str, Callable[[float], int]] = {"floor": math.floor, "round": round, "ceil": math.ceil}
SLACK = 1e-9  # 0.29 * 100 is 28.999999999999996


def count(level: float, total: int, rounding: Rounding = "floor", multiple: int = 1) -> int:
    """How many of `total` a sparsity takes: level x total, rounded, then rounded down to a multiple.

    Only a level of 1 takes all of them.
    """
    wanted = level * total
    nearest = round(wanted)
    number = nearest if abs(wanted - nearest) < SLACK else ROUNDINGS[rounding](wanted)
    number = min(total, number) // multiple * multiple
    return number - multiple if number == total and level < 1 else number


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
