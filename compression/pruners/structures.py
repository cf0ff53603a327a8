"""Pruners that rank whole structures: filters, channels, kernels, rows, columns, or coupled channels.

A filter is masked together with its bias and with the weight and bias of the normalisation behind it, so that its
channel is dead and thinning removes it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import rates, scores
from ..arguments import Fraction, Names, StructureGroup
from ..groups import GROUPS, rank_problem
from ..names import resolve
from ..registry import register
from ..selection import count, keep_highest
from .base import Pruner, View
from .coupling import cover
from .levels import falling


class RankedStructurePruner(Pruner):
    """Score x group x rate: hides the lowest-scored structures of each listed weight.

    With `group_dependency: Leader` the first listed weight decides for all.
    """

    def __init__(self, score: scores.Score, rate: rates.Rate, group_type: str, weights: Names, leader: bool) -> None:
        """Take the parts; the classes that schedules name choose them."""
        self.score, self.rate, self.group, self.leader = score, rate, GROUPS[group_type], leader
        self.weights = weights

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[tuple[str, str]]:
        """What a schedule's arguments get wrong together or for the tensors that they name."""
        if "final_sparsity" in args:
            yield from falling(args)
        for name in args["weights"]:
            problem = rank_problem(args["group_type"], name, shapes[name])
            if problem:
                yield "group_type", problem

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`."""
        self._names = resolve(self.weights, model)

    def masks(self, view: View) -> dict[str, Tensor]:
        """The masks by parameter, those of biases and norms that follow pruned filters included."""
        level = self.rate(view.window.progress(view.step))
        keeps = {name: self._keep(name, level, view) for name in (self._names[:1] if self.leader else self._names)}
        if self.leader:
            keeps = dict.fromkeys(self._names, keeps[self._names[0]])
        shapes = {name: view.weights[name].shape for name in keeps}
        masks = {name: self.group.expand(keep, shapes[name]).expand(shapes[name]) for name, keep in keeps.items()}
        return cover(masks, keeps, view) if self.group.output else masks

    def _keep(self, name: str, level: float, view: View) -> Tensor:
        structures = self.group.split(view.weights[name])
        alive = view.alive(name)
        living = None if alive is None else self.group.split(alive).any(1)
        return keep_highest(self.score(structures), count(level, len(structures)), living)


@register("pruners")
class L1RankedStructureParameterPruner(RankedStructurePruner):
    """Hides a constant fraction of structures, those of smallest mean absolute value (Li et al. 2017)."""

    score_function = staticmethod(scores.l1)

    def __init__(
        self,
        desired_sparsity: Fraction,
        weights: Names,
        group_type: StructureGroup = "Filters",
        group_dependency: Literal["Leader"] | None = None,
    ) -> None:
        """Take the fraction of structures to hide and the weights."""
        leader = group_dependency == "Leader"
        super().__init__(self.score_function, rates.constant(desired_sparsity), group_type, weights, leader)


@register("pruners")
class L1RankedStructureParameterPruner_AGP(RankedStructurePruner):  # noqa: N801  (the dialect's name)
    """Like `L1RankedStructureParameterPruner`, along the schedule of `rates.agp`."""

    score_function = staticmethod(scores.l1)

    def __init__(
        self,
        initial_sparsity: Fraction,
        final_sparsity: Fraction,
        weights: Names,
        group_type: StructureGroup = "Filters",
        group_dependency: Literal["Leader"] | None = None,
    ) -> None:
        """Take the fractions of structures to hide at the window's first and last time, and the weights."""
        rate = rates.agp(initial_sparsity, final_sparsity)
        super().__init__(self.score_function, rate, group_type, weights, group_dependency == "Leader")
