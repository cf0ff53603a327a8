"""Where channels can go along one of several axes (groups, or one of each group): the one along which more is dead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from .dead import find_dead
from .trace import Analysis
from .tracing.log import FREE, SplitAxis


def best_axes(analysis: Analysis, weights: Mapping[str, Tensor], allow_inexact: bool = False) -> Analysis:
    """Return the analysis with each such axis chosen by the number of channels that are dead along it.

    Of several queries that share a key either all go, with their key, or equally many of each key, whichever they are.
    """
    splits = [s for s in analysis.log.splits if len(s.choices) > 1 and (allow_inexact or s.inexact is None)]
    if not splits:
        return analysis
    # Each channel as if it could go alone: what is dead then is counted by row, before an axis ties it to others.
    free = analysis.with_splits({id(split): replace(split, along=FREE) for split in splits})
    alone = _dead(free, splits, weights, allow_inexact)
    together = _dead(analysis, splits, weights, allow_inexact)
    chosen = {
        id(split): _in_rows(split, each)
        for split, each, rows in zip(splits, alone, together, strict=True)
        # Along the second axis every row loses as many as the row with the fewest: the others keep what is over.
        if int(each.sum(1).min()) * len(each) > int(rows.sum())
    }
    # Sizes in the model's code were found for the first choices, and other ones may be fixed by it along these.
    return analysis.with_splits(chosen).with_sizes() if chosen else analysis


def _dead(analysis: Analysis, splits: list[SplitAxis], weights: Mapping[str, Tensor], inexact: bool) -> list[Tensor]:
    """Return which of the channels of each split are dead (bool, of the shape of its ids)."""
    dead = find_dead(analysis, weights, inexact).channels
    return [dead[analysis.numbers.labels[split.ids]] for split in splits]


def _in_rows(split: SplitAxis, dead: Tensor) -> SplitAxis:
    """Return the split along its second choice, the dead of each row first, so that they meet."""
    order = dead.long().argsort(dim=1, descending=True, stable=True)
    return replace(split, ids=split.ids.gather(1, order), along=split.choices[1])
