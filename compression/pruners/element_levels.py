"""Element-wise pruners that reach a sparsity: the smallest absolute values go, by exact count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..declare.arguments import Fraction, Levels, Names
from ..declare.cross_checks import Complaint
from ..declare.names import resolve, resolve_mapping
from ..declare.registry import register
from ..parts.selection import count, keep_highest
from ..parts.sparsity_rates import agp, falling
from .base import Pruner, View


def prune_elements(name: str, level: float, view: View) -> Tensor:
    """Mask that hides floor(level x n) of the n elements of a parameter, those of smallest absolute value."""
    weight = view.weights[name]
    return keep_highest(weight.abs(), count(level, weight.numel()), view.alive(name))


@register("pruners")
class SparsityLevelParameterPruner(Pruner):
    """Prunes each listed parameter to its own constant sparsity.

    A policy's `args: {levels: ...}` replaces the levels for that policy, so that several share one pruner.
    """

    takes_levels = True

    def __init__(self, levels: Levels) -> None:
        """Take `levels`: parameter name or pattern -> sparsity in 0..1; `*` is for all others."""
        self.levels = levels

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `levels`."""
        self._resolved = resolve_mapping(self.levels, model, star=True)

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter; a level of 0 makes none."""
        levels = self._resolved if view.levels is None else resolve_mapping(view.levels, view.model, star=True)
        return {name: prune_elements(name, level, view) for name, level in levels.items() if level > 0}

    def asked(self, view: View) -> Mapping[str, int]:
        """Return level x number of weights of each parameter."""
        levels = self._resolved if view.levels is None else resolve_mapping(view.levels, view.model, star=True)
        return {name: count(level, view.weights[name].numel()) for name, level in levels.items()}

    def targets(self) -> Iterable[str]:
        """Return the parameters with a level."""
        return self._resolved


@register("pruners")
class AutomatedGradualPruner(Pruner):
    """Prunes each listed parameter along the cubic schedule of Zhu and Gupta 2017 (see `rates.agp`)."""

    def __init__(self, initial_sparsity: Fraction, final_sparsity: Fraction, weights: Names) -> None:
        """Take the sparsity at the window's first time, the one at its last, and the parameters."""
        self.rate = agp(initial_sparsity, final_sparsity)
        self.weights = weights

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, Any]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together."""
        return falling(args)

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`."""
        self._names = resolve(self.weights, model)

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter at this step's sparsity."""
        level = self.rate(view.progress)
        return {name: prune_elements(name, level, view) for name in self._names}

    def asked(self, view: View) -> Mapping[str, int]:
        """Return the sparsity of this step x number of weights of each parameter."""
        level = self.rate(view.progress)
        return {name: count(level, view.weights[name].numel()) for name in self._names}

    def targets(self) -> Iterable[str]:
        """Return the listed parameters."""
        return self._names
