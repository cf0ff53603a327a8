"""Find the channels whose removal changes the function though no operation left its track."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .dead import Dead
from .label_sets import class_of_label
from .plan import make_recipe
from .trace import Analysis
from .verify import Verifier

WHY = "the outputs depend on the number or order of these channels (removing dead ones {why})"


def without_harmful(
    analysis: Analysis, dead: Tensor, weights: Mapping[str, Tensor], model: nn.Module, verifier: Verifier
) -> Analysis | None:
    """Return the analysis with those classes of channels frozen whose removal changes the outputs; None if none does.

    A model may scale by a number of channels (attention by the root of its width), pair channels by their position
    or draw random numbers of a tensor's size: nothing of that shows in shapes. Halves of the classes are removed on
    top of what is known to do no harm, then halves of those that do harm: two may do harm only together.
    """
    # By classes, not by channels: channels with the same uses are treated alike by the code, and there are far fewer
    # classes.
    group = class_of_label([use.labels for use in analysis.graph.uses], analysis.graph.frozen, analysis.graph.inexact)
    harmless, harm = torch.zeros_like(dead), {}
    # A stack of parts, halves in order: k harmful classes among n take about 2 k log2(n / k) runs instead of n.
    waiting = [group[dead].unique()]
    while waiting:
        part = waiting.pop()
        # On top of what did no harm, so that the final removal was tried as a whole, not only its parts.
        more = harmless | (dead & torch.isin(group, part))
        recipe, _ = make_recipe(analysis, Dead(more), weights, model)
        if verifier.keeps(recipe)[0]:
            harmless = more
        elif len(part) == 1:
            harm[int(part)] = verifier.why
        else:
            waiting += reversed(part.tensor_split(2))
    log = analysis.log.copy()
    for index, why in harm.items():
        # Frozen by id, since labels change with the numbering that follows.
        every = torch.isin(analysis.numbers.labels, (group == index).nonzero().flatten())
        log.freeze(every.nonzero().flatten(), WHY.format(why=why))
    return analysis.with_log(log) if harm else None
