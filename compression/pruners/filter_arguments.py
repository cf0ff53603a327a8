"""The arguments of pruners that rank filters by something else than their weights: at once, or gradually."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..declare.arguments import Fraction, Names
from ..parts.sparsity_rates import Rate, agp, constant
from .ranking import Dependency, RankedStructurePruner

FilterGroup = Literal["3D", "Filters"]


@dataclass(eq=False)
class OneShotFilters(RankedStructurePruner):
    """The arguments of pruners that hide a constant fraction of filters.

    Attributes:
        desired_sparsity: the fraction of filters to hide.
        weights: the weights of convolutions or Linear layers, or patterns of them.
        group_type: `Filters`, also called `3D`.
        group_dependency: `Leader`: the first listed weight decides for all.
    """

    desired_sparsity: Fraction
    weights: Names
    group_type: FilterGroup = "Filters"
    group_dependency: Dependency = None

    @property
    def rate(self) -> Rate:
        """The constant sparsity."""
        return constant(self.desired_sparsity)


@dataclass(eq=False)
class GradualFilters(RankedStructurePruner):
    """The arguments of pruners of filters whose sparsity rises along the schedule of `rates.agp`.

    Attributes:
        initial_sparsity: the fraction of filters to hide at the window's first time; it may be 0.
        final_sparsity: the fraction at its last.
        weights: the weights of convolutions or Linear layers, or patterns of them.
        group_type: `Filters`, also called `3D`.
        group_dependency: `Leader`: the first listed weight decides for all.
    """

    initial_sparsity: Fraction
    final_sparsity: Fraction
    weights: Names
    group_type: FilterGroup = "Filters"
    group_dependency: Dependency = None

    @property
    def rate(self) -> Rate:
        """The cubic rise."""
        return agp(self.initial_sparsity, self.final_sparsity)
