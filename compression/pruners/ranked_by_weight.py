"""Pruners that rank structures by their weights: L1 and L2, at once, gradually, or at a random level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..declare.arguments import Count, Fraction, Names
from ..declare.cross_checks import Complaint, apart
from ..declare.registry import register
from ..parts.scores import Score, l1, l2
from ..parts.seeded import generator
from ..parts.selection import Rounding
from ..parts.sharded_structures import scored
from ..parts.sparsity_rates import Rate, agp, constant
from ..parts.structures import Group, RankedGroup
from .base import View
from .ranking import Dependency, RankedStructurePruner


class WeightRanked(RankedStructurePruner):
    """Ranks by a score of the weights alone."""

    score_function: Score = staticmethod(l1)

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return the score of each structure of a weight."""
        return scored(self.score_function, group, view.weights[name])


@dataclass(eq=False)
class OneShot(WeightRanked):
    """The arguments of pruners that hide a constant fraction of structures.

    Attributes:
        desired_sparsity: the fraction of structures to hide.
        weights: the weights, or patterns of them.
        group_type: how a weight splits into structures.
        group_dependency: `Leader`: the first listed weight decides for all.
        kwargs: `{block_shape: [filters, channels, height, width]}` of `Blocks`.
        noise: the probability, at each activation and for each weight, that its scores are multiplied by normal noise.
        group_size: so many consecutive structures live or die together, and counts are multiples of it.
        rounding_fn: how level x structures becomes a whole number.
        seed: of the noise.
    """

    desired_sparsity: Fraction
    weights: Names
    group_type: RankedGroup = "Filters"
    group_dependency: Dependency = None
    kwargs: Mapping[str, Any] | None = None
    noise: Fraction = 0.0
    group_size: Count = 1
    rounding_fn: Rounding = "floor"
    seed: int = 0

    @property
    def rate(self) -> Rate:
        """The constant sparsity."""
        return constant(self.desired_sparsity)

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return the score of each structure, now and then with noise."""
        values = scored(self.score_function, group, view.weights[name])
        if not self.noise:
            return values
        source = generator(self.seed, view.owner, name, view.step.epoch, view.step.minibatch)
        if torch.rand((), generator=source, device="cpu") >= self.noise:
            return values
        return values * torch.randn(len(values), generator=source, device="cpu").to(values)


@dataclass(eq=False)
class Gradual(WeightRanked):
    """The arguments of pruners whose sparsity rises along the schedule of `rates.agp`.

    Attributes:
        initial_sparsity: the fraction of structures to hide at the window's first time.
        final_sparsity: the fraction at its last.
        weights: the weights, or patterns of them.
        group_type: how a weight splits into structures.
        group_dependency: `Leader`: the first listed weight decides for all.
        kwargs: `{block_shape: [filters, channels, height, width]}` of `Blocks`.
    """

    initial_sparsity: Fraction
    final_sparsity: Fraction
    weights: Names
    group_type: RankedGroup = "Filters"
    group_dependency: Dependency = None
    kwargs: Mapping[str, Any] | None = None

    @property
    def rate(self) -> Rate:
        """The cubic rise."""
        return agp(self.initial_sparsity, self.final_sparsity)


@register("pruners")
@dataclass(eq=False)
class L1RankedStructureParameterPruner(OneShot):
    """Hides a constant fraction of structures, those of smallest mean absolute value (Li et al. 2017)."""


@register("pruners")
@dataclass(eq=False)
class L2RankedStructureParameterPruner(OneShot):
    """Hides a constant fraction of structures, those of smallest Euclidean norm."""

    score_function = staticmethod(l2)


@register("pruners")
@dataclass(eq=False)
class L1RankedStructureParameterPruner_AGP(Gradual):  # noqa: N801  (the dialect's name)
    """Like `L1RankedStructureParameterPruner`, along the schedule of `rates.agp`."""


@register("pruners")
@dataclass(eq=False)
class L2RankedStructureParameterPruner_AGP(Gradual):  # noqa: N801  (the dialect's name)
    """Like `L2RankedStructureParameterPruner`, along the schedule of `rates.agp`."""

    score_function = staticmethod(l2)


@register("pruners")
@dataclass(eq=False)
class RandomLevelStructureParameterPruner(WeightRanked):
    """Like `L1RankedStructureParameterPruner` at a level drawn anew at each activation and for each weight.

    Attributes:
        sparsity_range: [lowest, highest] level.
        weights: the weights, or patterns of them.
        group_type: how a weight splits into structures.
        group_dependency: `Leader`: the first listed weight decides for all.
        kwargs: `{block_shape: [filters, channels, height, width]}` of `Blocks`.
        seed: of the draws, together with the policy's name, the weight's and the step.
    """

    sparsity_range: tuple[Fraction, Fraction]
    weights: Names
    group_type: RankedGroup = "Filters"
    group_dependency: Dependency = None
    kwargs: Mapping[str, Any] | None = None
    seed: int = 0

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Return a range that is the wrong way round, and what groups cannot do."""
        return apart(_backward(args), super().problems(args, shapes))

    def at_last_level(self, view: View) -> bool:
        """Return each level is drawn for itself."""
        return True

    def level(self, name: str, view: View) -> float:
        """Return a level drawn from the range."""
        low, high = self.sparsity_range
        source = generator(self.seed, view.owner, name, view.step.epoch, view.step.minibatch)
        return low + (high - low) * float(torch.rand((), generator=source, device="cpu"))


def _backward(args: Mapping[str, Any]) -> Iterable[Complaint]:
    low, high = args["sparsity_range"]
    if high < low:
        yield "sparsity_range", f"{low:g} must not be above {high:g}"
