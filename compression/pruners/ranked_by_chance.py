"""Pruners of filters by chance. Draws are functions of seed, policy, weight and step: a resumed run repeats them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..declare.registry import register
from ..parts.seeded import generator
from ..parts.sharded_structures import spread
from ..parts.structures import Group
from .base import View
from .filter_arguments import GradualFilters, OneShotFilters
from .indivisible import Ties
from .ranking import Keeps, RankedStructurePruner, Scores


class RandomScore(RankedStructurePruner):
    """Ranks filters in a random order, another one at each activation."""

    seed: int = 0

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return a random permutation."""
        source = generator(self.seed, view.owner, name, view.step.epoch, view.step.minibatch)
        weight = view.weights[name]
        return torch.randperm(group.count(weight.shape), generator=source, device="cpu").to(weight.device, weight.dtype)


class Bernoulli(RankedStructurePruner):
    """Keeps each filter with probability 1 - s.

    In soft modes each activation draws anew, and the filters alone are masked: a dropout of filters. With a dense copy
    what is kept is divided by the share that was kept; without one there is nothing unscaled to return to, and the
    factors of all draws would multiply. In hard mode a filter's draw is made once, so that it goes for good when the
    sparsity passes it.
    """

    seed: int = 0
    counts = False

    def _keep_singles(self, name: str, view: View, score: Scores) -> Keeps | None:
        """Return which filters stay."""
        when = () if view.mode == "hard" else (view.step.epoch, view.step.minibatch)
        source = generator(self.seed, view.owner, name, *when)
        draws = torch.rand(self._groups[name].count(view.weights[name].shape), generator=source, device="cpu")
        level = self.level(name, view)
        keep = draws >= level
        if level < 1:
            keep[draws.argmax()] = True  # a layer without any filter cuts the network in two
        keep = keep.to(view.weights[name].device)
        living = self._living(name, view)
        return {name: keep if living is None else keep & living}

    def _keep_sets(self, tie: Ties, names: list[str], view: View, score: Scores) -> Keeps | None:
        """Return which filters stay, where they live or die in sets: the first filter's draw is that of its set."""
        drawn: Keeps = {}
        for name in names:
            drawn |= self._keep_singles(name, view, score) or {}
        every = torch.cat([drawn[name].cpu() for name in names])
        sets = torch.cat([tie.sets[name] for name in names])
        first = torch.full((tie.count,), len(sets), device="cpu").scatter_reduce_(
            0, sets, torch.arange(len(sets), device="cpu"), "amin"
        )
        stays = every[first]
        if not stays.any():
            stays[sets[every]] = True  # at least one filter drew to stay
        living = {name: self._living(name, view) for name in names}
        kept = {name: stays[tie.sets[name]].to(drawn[name].device) for name in names}
        return {name: keep if (alive := living[name]) is None else keep & alive for name, keep in kept.items()}

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter: factors where there is a dense copy."""
        if view.mode == "hard":
            return super().masks(view)
        masks = {}
        for name, keep in self._keeps(replace(view, graph=_unknown), self.score).items():
            weight = view.weights[name]
            factors = keep.to(weight.dtype)
            if view.mode == "copy":
                factors /= factors.mean().clamp_min(torch.finfo(weight.dtype).tiny)
            masks[name] = spread(self._groups[name], factors, weight)
        return masks


def _unknown() -> None:
    """Return None, no channel graph: each filter is for itself."""


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
