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
from ..parts.structures import GROUPS, PlainGroup, oriented, rank_problem
from ..parts.weight_norm import direction_problem
from .base import Pruner, View
from .cover_channel import cover

Regims = Annotated[Mapping[str, tuple[NonNegative, PlainGroup]], ParameterNames()]


@register("pruners")
class StructureParameterPruner(Pruner):
    """Hides the structures whose size is at most a threshold: the largest absolute value, or the mean of them."""

    def __init__(self, reg_regims: Regims, threshold_criteria: Literal["Max", "Mean_Abs"] = "Max") -> None:
        """Take `reg_regims`: weight or pattern -> [threshold, group type], and what is compared with the threshold."""
        self.reg_regims, self.size = reg_regims, SIZES[threshold_criteria]

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Groups that a tensor does not have, or whose end would be that of a weight norm."""
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

    def targets(self) -> Iterable[str]:
        """The weights with a threshold."""
        return self._thresholds

    def masks(self, view: View) -> dict[str, Tensor]:
        """The masks by parameter, those of biases and norms that follow pruned filters included."""
        masks, keeps = {}, {}
        for name, threshold in self._thresholds.items():
            group, weight = self._groups[name], view.weights[name]
            keep = self.size(group.split(weight)) > threshold
            masks[name] = view.still(name, group.expand(keep, weight.shape))
            if group.output:
                keeps[name] = keep
        return cover(masks, keeps, self._groups, view) if keeps else masks
