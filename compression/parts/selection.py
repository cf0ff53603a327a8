"""Which of the scores are the lowest: exact counts, ties broken by position."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..processes.shard_selection import keep_highest_sharded
from ..processes.shards import is_sharded

Rounding = Literal["floor", "round", "ceil"]
ROUNDINGS: dict[str, Callable[[float], int]] = {"floor": math.floor, "round": round, "ceil": math.ceil}
SLACK = 1e-9  # 0.29 * 100 is 28.999999999999996


def count(level: float, total: int, rounding: Rounding = "floor", multiple: int = 1) -> int:
    """Return how many of `total` a sparsity takes: level x total, rounded, then rounded down to a multiple.

    Only a level of 1 takes all of them.
    """
    wanted = level * total
    nearest = round(wanted)  # a product that is whole but for its rounding errors is that whole number
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
    if is_sharded(scores):
        return keep_highest_sharded(scores, prune, alive)
    flat = scores.detach().flatten()
    if torch.isnan(flat).any():
        raise ValueError("scores that are not numbers (NaN) cannot be ranked")
    if alive is not None:
        flat = flat.masked_fill(~alive.flatten(), -torch.inf)
        prune = max(prune, int((~alive).sum()))
    keep = torch.ones_like(flat, dtype=torch.bool)
    if prune <= 0:
        return keep.view_as(scores)
    # Not `flat <= threshold`, which prunes all that equal it: a tensor of equal scores would go as a whole. So what is
    # below goes, and of the ties as many as are left, the first ones: the count is exact and the same on every machine
    # (the order of `topk` and of an unstable sort among equals is not).
    threshold = flat.kthvalue(prune).values
    keep = flat > threshold
    ties = (flat == threshold).nonzero().flatten()
    spared = prune - int((flat < threshold).sum())
    keep[ties[spared:]] = True
    return keep.view_as(scores)


@dataclass(frozen=True)
class Share:
    """What is asked of one weight whose structures live or die in sets, which it may share with other weights.

    Attributes:
        sets: the number of the set of each structure (int64, on the CPU).
        prune: how many structures to prune, those that are not alive included.
        alive: where a structure lives (bool); None where all do.
    """

    sets: Tensor
    prune: int
    alive: Tensor | None = None

    @property
    def living(self) -> Tensor:
        """Return where a structure lives (bool, on the CPU)."""
        return torch.ones(len(self.sets), dtype=torch.bool) if self.alive is None else self.alive.cpu()


def keep_whole_sets(scores: Tensor, shares: Sequence[Share]) -> list[Tensor]:
    """Prune whole sets, the lowest-scored first, as many as fit into what is asked of each weight.

    A set that does not fit is passed over; of equal scores the set of the lower number goes first. What is not alive
    stays pruned.

    Args:
        scores: a score for each set.
        shares: for each weight its sets and the count.

    Returns:
        For each weight which structures stay (bool, on the CPU).

    Raises:
        ValueError: a score is not a number.
    """
    scores = scores.detach().cpu()
    if torch.isnan(scores).any():
        raise ValueError("scores that are not numbers (NaN) cannot be ranked")
    # (sets, weights): how many living structures of each weight go with each set. What is dead already costs nothing
    # and is off what is asked.
    costs = torch.stack([share.sets[share.living].bincount(minlength=len(scores)) for share in shares], 1)
    left = [share.prune - int((~share.living).sum()) for share in shares]
    order = scores.argsort(stable=True)
    order = order[costs[order].any(1)]  # sets of which nothing lives cost nothing: they are gone already
    gone = torch.zeros(len(scores), dtype=torch.bool)
    gone[order[_fitting(costs[order], left)]] = True
    return [share.living & ~gone[share.sets] for share in shares]


def _fitting(costs: Tensor, left: list[int]) -> Tensor:
    """Return the places of the rows of `costs` (sets, weights) that fit, one after the other, into what is `left`."""
    if len(costs) and bool((costs == costs[0]).all()):  # the usual case: no need to go one by one
        number = min(have // cost for have, cost in zip(left, costs[0].tolist(), strict=True) if cost)
        return torch.arange(min(max(0, number), len(costs)))
    taken = []
    for place, row in enumerate(costs.tolist()):
        if all(cost <= have or not cost for cost, have in zip(row, left, strict=True)):
            # Greedy in the order of scores, not the fullest packing: no set goes in place of a lower-scored one that
            # fits.
            left = [have - cost for cost, have in zip(row, left, strict=True)]
            taken.append(place)
    return torch.tensor(taken, dtype=torch.int64)
