"""Draws the norms of a weight's channels apart, so that a threshold finds some to remove."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..declare.arguments import NonNegative, ParameterNames
from ..declare.cross_checks import Complaint
from ..declare.names import resolve_mapping
from ..declare.registry import register
from ..parts.structures import CHANNELS, oriented, placed, rank_problem
from ..processes.shards import refuse_sharded
from ..steps import Step
from .base import Regularizer, refuse_complex
from .in_place_gradients import wide

VarianceStrengths = Annotated[Mapping[str, tuple[NonNegative, Literal["Channels"]]], ParameterNames()]


@register("regularizers")
class GroupVarianceRegularizer(Regularizer):
    """Adds strength / variance of the Euclidean norms of a weight's channels, for each listed weight."""

    def __init__(self, reg_regims: VarianceStrengths) -> None:
        """Take `reg_regims`: weight name or pattern -> [strength, Channels]."""
        self.reg_regims = reg_regims

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Complain of weights without channels, or with one alone, whose norm has no variance."""
        for name in args["reg_regims"]:
            problem = rank_problem("Channels", name, shapes[name])
            if problem:
                yield f"reg_regims.{name}", problem
            elif placed(CHANNELS, name, shapes).count(shapes[name]) < 2:
                yield f"reg_regims.{name}", f"{name} of shape {tuple(shapes[name])} has one channel: no variance"

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `reg_regims`."""
        regims = resolve_mapping(self.reg_regims, model)
        refuse_complex(regims, model)
        refuse_sharded(type(self).__name__, regims, model)
        self._entries = [(name, oriented(CHANNELS, name, model), strength) for name, (strength, _) in regims.items()]

    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Return the penalty."""
        terms = []
        for name, group, strength in self._entries:
            structures = group.split(weights[name])
            norms = torch.linalg.vector_norm(structures, dim=1, dtype=wide([structures]))
            terms.append(strength / norms.var().clamp_min(torch.finfo(norms.dtype).tiny))
        return torch.stack(terms).sum()
