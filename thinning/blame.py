"""When a removal changes the function though no operation left its track: which channels are to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .apply import apply
from .check import outputs, relative_difference
from .classes import class_of_label
from .copying import shared_copy
from .dead import Dead
from .plan import make_recipe
from .trace import Traced

WHY = "the outputs depend on the number or order of these channels (removing dead ones changes them by {gap:.1e})"


def without_culprits(
    traced: Traced,
    dead: Tensor,
    weights: Mapping[str, Tensor],
    model: nn.Module,
    batches: Sequence[Any],
    tolerance: float,
) -> Traced | None:
    """The trace with those classes of channels frozen whose removal alone changes the outputs; None if none does.

    A model may scale by a number of channels (attention by the root of its width), pair channels by their position
    or draw random numbers of a tensor's size: nothing of that shows in shapes.
    """
    graph = traced.graph
    group = class_of_label([use.labels for use in graph.uses], graph.frozen, graph.inexact)
    before, found = outputs(model, batches), False
    for index in group[dead].unique().tolist():
        part = dead & (group == index)
        recipe, _ = make_recipe(traced, Dead(part), weights, model)
        copy = shared_copy(model)
        try:
            apply(recipe, copy)
            gap = relative_difference(before, outputs(copy, batches))
        except Exception:  # whatever a model's code raises when sizes do not fit
            gap = float("inf")
        if gap > tolerance:
            every = torch.isin(traced.numbers.labels, (group == index).nonzero().flatten())
            traced.notes.freeze(every.nonzero().flatten(), WHY.format(gap=gap))
            found = True
    return traced.renumbered() if found else None
