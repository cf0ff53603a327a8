"""Pruners of filters by chance. Draws are functions of seed, policy, weight and step: a resumed run repeats them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..declare.registry import register
from ..parts.seeded import generator
from ..parts.structures import Group
from .base import View
from .ranked_by_activity import GradualFilters, OneShotFilters
from .ranking import RankedStructurePruner


class RandomScore(RankedStructurePruner):
    """Ranks filters in a random order, another one at each activation."""

    seed: int = 0

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """A random permutation."""
        source = generator(self.seed, view.owner, name, view.step.epoch, view.step.minibatch)
        weight = view.weights[name]
        return torch.randperm(group.count(weight.shape), generator=source, device="cpu").to(weight)


class Bernoulli(RankedStructurePruner):
    """Keeps each filter with probability 1 - s.

    In soft modes each activation draws anew, and the filters alone are masked: a dropout of filters. With a dense copy
    what is kept is divided by the share that was kept; without one there is nothing unscaled to return to, and the
    factors of all draws would multiply. In hard mode a filter's draw is made once, so that it goes for good when the
    sparsity passes it.
    """

    seed: int = 0

    def keep(self, name: str, view: View) -> Tensor:
        """Which filters stay."""
        when = () if view.mode == "hard" else (view.step.epoch, view.step.minibatch)
        source = generator(self.seed, view.owner, name, *when)
        draws = torch.rand(self._groups[name].count(view.weights[name].shape), generator=source, device="cpu")
        level = self.level(name, view)
        keep = draws >= level
        if level < 1:
            keep[draws.argmax()] = True  # a layer without any filter cuts the network in two
        keep = keep.to(view.weights[name].device)
        alive = view.alive(name)
        return keep if alive is None else keep & self._groups[name].split(alive).any(1)

    def masks(self, view: View) -> dict[str, Tensor]:
        """The masks by parameter: factors where there is a dense copy."""
        if view.mode == "hard":
            return super().masks(view)
        masks = {}
        for name, keep in self._keeps(view).items():
            weight = view.weights[name]
            factors = keep.to(weight)
            if view.mode == "copy":
                factors /= factors.mean().clamp_min(torch.finfo(weight.dtype).tiny)
            masks[name] = self._groups[name].expand(factors, weight.shape)
        return masks


@register("pruners")
@dataclass(eq=False)
class RandomRankedFilterPruner(RandomScore, OneShotFilters):
    """Hides a constant fraction of filters, by chance: the baseline for everything that ranks."""

    seed: int = 0


@register("pruners")
@dataclass(eq=False)
class RandomRankedFilterPruner_AGP(RandomScore, GradualFilters):  # noqa: N801  (the dialect's name)
    """Like `RandomRankedFilterPruner`, along the schedule of `rates.agp`."""

    seed: int = 0


@register("pruners")
@dataclass(eq=False)
class BernoulliFilterPruner(Bernoulli, OneShotFilters):
    """Drops each filter with a constant probability."""

    seed: int = 0


@register("pruners")
@dataclass(eq=False)
class BernoulliFilterPruner_AGP(Bernoulli, GradualFilters):  # noqa: N801  (the dialect's name)
    """Drops each filter with a probability that rises along the schedule of `rates.agp`."""

    seed: int = 0
