"""Channels that are zero where they are made and stay all the same: why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .apply import apply
from .axes import best_axes
from .dead import Dead, find_dead
from .difference import relative_difference
from .plan import make_recipe
from .recipe import Kept, Recipe
from .running.copies import named_tensors, shared_copy
from .running.outputs import outputs
from .trace import Analysis
from .tracing.constants import zero_slices
from .tracing.entries import Operation
from .tracing.labels import Plane

UNREAD = "zero where it is made, but nothing is known to read it"
AVERAGED = "{} (allow_inexact=True removes it)"
OTHER = "zero where it is made, but its removal may change another sum over it (a norm of weights, say)"


def silent_reasons(analysis: Analysis, dead: Dead, weights: Mapping[str, Tensor]) -> dict[int, tuple[str, str]]:
    """Return first maker and reason by label, of channels that are zero where made and neither frozen nor dead."""
    graph = analysis.graph
    first, silent = _silent(analysis, weights, dead.channels)
    silent &= ~dead.channels & (graph.frozen < 0)
    silent[[0, *dead.stuck]] = False
    read = torch.zeros_like(silent)
    for item in analysis.log.reads:
        read[analysis.numbers.labels[item.ids]] = True
    reasons = {label: OTHER if read[label] else UNREAD for label in silent.nonzero().flatten().tolist()}
    # The first operation that reads a 0, or a constant made of it, and makes something unknown of that is where the
    # channel comes alive.
    for operation in analysis.log.operations if reasons else ():
        for label in _lost(analysis, operation, silent).tolist():
            if reasons[label] in (OTHER, UNREAD):
                reasons[label] = f"zero where it is made, but that is lost in {operation.place}"
    for label in (silent & (graph.inexact >= 0)).nonzero().flatten().tolist() if not dead.inexact else ():
        reasons[label] = AVERAGED.format(graph.reasons[int(graph.inexact[label])])
    makers = {label: graph.uses[int(first[label])] for label in reasons}
    return {label: (f"{makers[label].name}[{makers[label].dim}]", why) for label, why in reasons.items()}


def _silent(analysis: Analysis, weights: Mapping[str, Tensor], dead: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of the first use that makes each channel as zeros, and which are zero wherever they are made.

    By label; -1 for none. Channels that are dead are not looked at: reading their zeros takes the longest.
    """
    first = torch.full((len(analysis.graph.frozen),), -1)
    loud = torch.zeros(len(first), dtype=torch.bool)
    for number, use in enumerate(analysis.graph.uses):
        if use.role in ("out", "scale", "shift"):
            zero = zero_slices(weights[use.name], use.dim, ~dead[use.labels])
            loud[use.labels[~zero]] = True
            labels = use.labels[zero]
            first[labels[first[labels] < 0]] = number
    return first, (first >= 0) & ~loud


def _lost(analysis: Analysis, operation: Operation, silent: Tensor) -> Tensor:
    """Return the channels that are known in what an operation reads, and unknown in what it makes."""
    before, after = torch.zeros_like(silent), torch.zeros_like(silent)
    for plane in operation.read:
        before[analysis.numbers.labels[plane.ids[~_value(plane).isnan()]]] = True
    for _, planes in operation.made:
        for plane in planes:
            after[analysis.numbers.labels[plane.ids[_value(plane).isnan()]]] = True
    return (before & after & silent).nonzero().flatten()


def _value(plane: Plane) -> Tensor:
    return torch.full(plane.ids.shape, torch.nan) if plane.value is None else plane.value


def averaged(analysis: Analysis) -> dict[int, str]:
    """Return, by label, of whole groups that a norm averages over, what removes single channels of them."""
    reasons: dict[int, str] = {}
    for split in analysis.log.splits:
        if split.inexact is not None and split.first:
            why = f"{analysis.log.reasons[split.inexact]} (allow_inexact=True removes as many of each group)"
            reasons |= dict.fromkeys(analysis.numbers.labels[split.ids].unique().tolist(), why)
    return reasons


def with_measured_gap(
    kept: Sequence[Kept], analysis: Analysis, weights: Mapping[str, Tensor], dense: nn.Module, batches: Sequence[Any]
) -> tuple[Kept, ...]:
    """Say of channels that could go inexactly by how much the outputs of `dense`, the model before, would change."""
    if not any("allow_inexact=True" in one.reason for one in kept):
        return tuple(kept)
    analysis, copy = best_axes(analysis, weights, allow_inexact=True), shared_copy(dense)
    try:
        before = outputs(dense, batches)
        apply(make_recipe(analysis, find_dead(analysis, weights, allow_inexact=True), weights, copy)[0], copy)
        gap = (
            f"; the outputs would change by {relative_difference(before, outputs(copy, batches)):.1e} of their maximum"
        )
    except Exception:  # only a remark is lost: the channels stay either way
        return tuple(kept)
    return tuple(replace(one, reason=one.reason + gap) if "allow_inexact=True" in one.reason else one for one in kept)


def measured_refusals(
    recipe: Recipe, analysis: Analysis, dead: Dead, dense: nn.Module, batches: Sequence[Any]
) -> tuple[Kept, ...]:
    """Return the refusals with the difference that removing those channels (folded as far as it goes) would make.

    `dense` is a copy of the model as it was before thinning; it is changed.
    """
    every = dead.channels.clone()
    every[list(dead.stuck)] = True
    try:
        before = outputs(dense, batches)
        apply(make_recipe(analysis, Dead(every), named_tensors(dense), dense)[0], dense)
        gap = f"{relative_difference(before, outputs(dense, batches)):.1e}"
    except Exception:  # only a remark is lost: the channels stay either way
        return recipe.refused
    text = f"; removing all of these would change the output by {gap} of its maximum"
    return tuple(replace(kept, reason=kept.reason + text) for kept in recipe.refused)
