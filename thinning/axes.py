"""Where channels can go along one of several axes (groups, or one of each group): the one along which more is dead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .dead import find_dead
from .rehearsal.repairs import Repairs
from .trace import Analysis
from .tracing.constants import zero_slices
from .tracing.entries import FREE, SplitAxis


def best_axes(analysis: Analysis, weights: Mapping[str, Tensor], allow_inexact: bool = False) -> Analysis:
    """Return the analysis with each such axis chosen by the number of channels that are dead along it.

    Of several queries that share a key either all go, with their key, or equally many of each key, whichever they are.
    Of an axis that a view makes two of, what the model's code lets go is tried along either.
    """
    analysis = _best_views(analysis, weights, allow_inexact)
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


def _best_views(analysis: Analysis, weights: Mapping[str, Tensor], inexact: bool) -> Analysis:
    """Return the analysis with views followed along an axis whose rows are zeros, where that lets more of them go."""
    views = [split for split in analysis.log.splits if not split.choices and split.ids.numel() > 1]
    if not views:
        return analysis
    silent = _zeros(analysis, weights)
    before = find_dead(analysis, weights, inexact).channels[analysis.numbers.labels]
    turned = {id(split): replace(split, along=dim) for split in views for dim in _rows(split, silent, before)}
    if not turned:
        return analysis
    ids = torch.cat([split.ids.reshape(-1) for split in turned.values()])
    # What counts channels along the other axis is found anew.
    counts = [count for count in analysis.log.attributes if not bool(torch.isin(count.ids, ids).any())]
    fresh = replace(analysis, repairs=Repairs(analysis.repairs.model)).with_log(analysis.log.copy(attributes=counts))
    other = fresh.with_splits(turned).with_sizes()
    after = find_dead(other, weights, inexact).channels[other.numbers.labels]
    return other if int(after.sum()) > int(before.sum()) else analysis


def _zeros(analysis: Analysis, weights: Mapping[str, Tensor]) -> Tensor:
    """Return (bool by id as issued) what is zero in all that makes it, whatever a view lets go together."""
    root, log = analysis.log.roots(), analysis.log
    made, loud = torch.zeros(len(root), dtype=torch.bool), torch.zeros(len(root), dtype=torch.bool)
    for (name, dim), ids in log.ids.items():
        if log.roles.get((name, dim)) in ("out", "scale", "shift"):
            zero = zero_slices(weights[name], dim)
            made[root[ids[zero]]] = True
            loud[root[ids[~zero]]] = True
    return (made & ~loud)[root]


def _rows(split: SplitAxis, silent: Tensor, dead: Tensor) -> list[int]:
    """Return the axis of which most rows are zeros, if more than go now."""
    zeros = silent[split.ids]
    gone = [int(zeros.movedim(dim, 0).flatten(1).all(1).sum()) * zeros.select(dim, 0).numel() for dim in _axes(zeros)]
    return [_axes(zeros)[gone.index(max(gone))]] if gone and max(gone) > int(dead[split.ids].sum()) else []


def _axes(ids: Tensor) -> list[int]:
    return [dim for dim, size in enumerate(ids.shape) if size > 1]
