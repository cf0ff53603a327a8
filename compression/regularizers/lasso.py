"""L1 and group lasso."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..arguments import NonNegative, ParameterNames, Strengths, StructureGroup
from ..groups import GROUPS, rank_problem
from ..names import resolve_mapping
from ..registry import register
from ..steps import Step
from .base import Regularizer

Criterion = Literal["Max", "Mean_Abs"] | None
GroupStrengths = Annotated[Mapping[str, tuple[NonNegative, StructureGroup]], ParameterNames()]


@register("regularizers")
class L1Regularizer(Regularizer):
    """Adds strength x sum of absolute values for each listed parameter.

    With `threshold_criteria` (any), values whose absolute value is at most the strength become zero at the times that
    the policy's `threshold_at` says.
    """

    def __init__(self, reg_regims: Strengths, threshold_criteria: Criterion = None) -> None:
        """Take `reg_regims`: parameter name or pattern -> strength."""
        self.reg_regims, self.threshold_criteria = reg_regims, threshold_criteria

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `reg_regims`."""
        self._strengths = resolve_mapping(self.reg_regims, model)

    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Sum over parameters of strength x L1 norm."""
        return torch.stack([s * weights[name].abs().sum() for name, s in self._strengths.items()]).sum()

    def threshold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks that keep absolute values above the strength."""
        if self.threshold_criteria is None:
            return {}
        return {name: weights[name].abs() > strength for name, strength in self._strengths.items()}


@register("regularizers")
class GroupLassoRegularizer(Regularizer):
    """Adds strength x sum over groups of the group's Euclidean norm (Yuan and Lin 2006), without size factor."""

    def __init__(self, reg_regims: GroupStrengths, threshold_criteria: Criterion = None) -> None:
        """Take `reg_regims`: parameter name or pattern -> [strength, group type]."""
        self.reg_regims, self.threshold_criteria = reg_regims, threshold_criteria

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[tuple[str, str]]:
        """Group types that a tensor's rank does not allow."""
        for name, (_, group) in args["reg_regims"].items():
            problem = rank_problem(group, name, shapes[name])
            if problem:
                yield f"reg_regims.{name}", problem

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `reg_regims`."""
        self._regims = resolve_mapping(self.reg_regims, model)

    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Sum over parameters of strength x sum of group norms; the gradient of a zero group is zero."""
        terms = [s * GROUPS[g].split(weights[name]).norm(dim=1).sum() for name, (s, g) in self._regims.items()]
        return torch.stack(terms).sum()

    def threshold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks that keep groups whose mean absolute value (or largest, for `Max`) is above the strength."""
        if self.threshold_criteria is None:
            return {}
        masks = {}
        for name, (strength, group_type) in self._regims.items():
            weight, group = weights[name], GROUPS[group_type]
            sizes = group.split(weight.detach()).abs()
            size = sizes.amax(1) if self.threshold_criteria == "Max" else sizes.mean(1)
            masks[name] = group.expand(size > strength, weight.shape).expand(weight.shape)
        return masks
