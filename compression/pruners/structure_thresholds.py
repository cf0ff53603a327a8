"""Prunes structures that are small, however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..declare.arguments import NonNegative, ParameterNames
from ..declare.cross_checks import Complaint, Shapes
from ..declare.names import resolve_mapping
from ..declare.registry import register
from ..parts.scores import SIZES
from ..parts.sharded_structures import any_in, scored, spread
from ..parts.structures import GROUPS, Group, PlainGroup, oriented, rank_problem
from ..parts.weight_norm import direction_problem
from .base import Pruner, View
from .cover_channel import cover
from .indivisible import Ties, alone, ties
from .outcome import Outcome
from .ranking_result import Ranking, outcomes_of

Regims = Annotated[Mapping[str, tuple[NonNegative, PlainGroup]], ParameterNames()]


@register("pruners")
class StructureParameterPruner(Pruner):
    """Hides the structures whose size is at most a threshold: the largest absolute value, or the mean of them."""

    def __init__(self, reg_regims: Regims, threshold_criteria: Literal["Max", "Mean_Abs"] = "Max") -> None:
        """Take `reg_regims`: weight or pattern -> [threshold, group type], and what is compared with the threshold."""
        self.reg_regims, self.size = reg_regims, SIZES[threshold_criteria]

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Complain of groups that a tensor does not have, or whose end would be that of a weight norm."""
        for name, (_, group) in args["reg_regims"].items():
            problem = rank_problem(group, name, shapes[name]) or direction_problem(GROUPS[group], name, shapes)
            if problem:
                yield f"reg_regims.{name}", problem

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `reg_regims`.

        Raises:
            ValueError: a weight cannot be split so.
        """
        regims = resolve_mapping(self.reg_regims, model)
        found = [problem for _, problem in self.problems({"reg_regims": regims}, Shapes(model))]
        if found:
            raise ValueError("; ".join(found))
        self._thresholds = {name: threshold for name, (threshold, _) in regims.items()}
        self._groups = {name: oriented(GROUPS[group], name, model) for name, (_, group) in regims.items()}
        self._outcomes: Mapping[str, Outcome] = {}

    def structures(self) -> Mapping[str, Group]:
        """Return how each weight splits."""
        return self._groups

    def targets(self) -> Iterable[str]:
        """Return the weights with a threshold."""
        return self._thresholds

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Return what the last comparison with the thresholds asked and did, by weight."""
        return self._outcomes

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter, those of biases and norms that follow pruned filters included."""
        keeps = {name: self._above(name, threshold, view) for name, threshold in self._thresholds.items()}
        asked = {name: len(keep) - int(keep.sum()) for name, keep in keeps.items()}
        filters = {name: len(keep) for name, keep in keeps.items() if self._groups[name].output}
        tied = (
            ties(filters, {name: self._groups[name].kept[0] for name in filters}, view.graph(), False)
            if filters
            else []
        )
        for tie in tied:
            keeps |= _of_whole_sets(tie, keeps)
        masks = {name: spread(self._groups[name], keep, view.weights[name]) for name, keep in keeps.items()}
        masks = cover(masks, {name: keeps[name] for name in filters}, self._groups, view) if filters else masks
        others = [alone(name, len(keep)) for name, keep in keeps.items() if name not in filters]
        self._outcomes = outcomes_of(Ranking(masks, keeps, asked, [*tied, *others]), self._groups, view)
        return {name: view.still(name, mask) for name, mask in masks.items()}

    def _above(self, name: str, threshold: float, view: View) -> Tensor:
        """Return which structures are above the threshold and were not hidden before."""
        group, alive = self._groups[name], view.alive(name)
        keep = scored(self.size, group, view.weights[name]) > threshold
        return keep if alive is None else keep & any_in(group, alive)


def _of_whole_sets(tie: Ties, keeps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Let a set go only where all of its filters would."""
    stays = torch.zeros(tie.count, dtype=torch.bool, device="cpu")
    for name, sets in tie.sets.items():
        stays[sets[keeps[name].cpu()]] = True
    return {name: stays[sets].to(keeps[name].device) for name, sets in tie.sets.items()}
