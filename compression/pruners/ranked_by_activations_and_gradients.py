"""Pruners of filters that rank by what they see during training: activations, gradients."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..declare.cross_checks import Complaint, apart
from ..declare.registry import register
from ..files.checked import Field
from ..parts.compiled_models import hooks_left_out, refuse_compiled
from ..parts.sharded_structures import summed
from ..parts.structures import Group
from .base import View
from .filter_arguments import GradualFilters, OneShotFilters
from .follow_activations import Finder, Follower, Site, channel_dim, unwatched
from .ranking import RankedStructurePruner
from .statistics import Statistics, after_backward, without_gradients

logger = logging.getLogger(__name__)


class Gathering(RankedStructurePruner):
    """Gathers a statistic of each filter during training, from one ranking to the next.

    What watches the model is attached by `bind` and detached when the window of the last policy ends.
    """

    direction = ""
    local = ("statistics",)

    def __post_init__(self) -> None:
        """Start without statistics."""
        self.statistics = Statistics()
        self._users = 0
        self._handles: list[Any] = []

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights` and begin to watch."""
        super().bind(model)
        self._users += 1
        if self._users == 1:
            self.attach(model)
            if self.direction:
                logger.info("%s prunes the %s; Distiller did the opposite", type(self).__name__, self.direction)

    def attach(self, model: nn.Module) -> None:
        """Attach what gathers the statistics."""
        raise NotImplementedError

    def detach(self) -> None:
        """Remove what `attach` attached."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter; new statistics begin."""
        like = {
            name: torch.zeros(group.count(view.weights[name].shape), device=view.weights[name].device)
            for name, group in self._groups.items()
        }
        with self.statistics.pooled(view.ranks, like):
            masks = super().masks(view)
        self.statistics.restart()
        return masks

    def waits(self) -> bool:
        """Return whether a weight has no statistics yet."""
        return any(self.statistics.mean(name) is None for name in self.targets())

    def release(self) -> None:
        """Stop watching when the last policy's window is over."""
        self._users -= 1
        if self._users == 0:
            self.detach()

    def copied(self, model: nn.Module) -> None:
        """Watch the model of a copy."""
        if self._users:
            self._handles = []
            self.attach(model)

    def after_thinning(self) -> None:
        """Drop the statistics of the old filters, which are worth nothing."""
        self.statistics.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, and how many policies still watch."""
        return {"statistics": self.statistics.state_dict(), "users": self._users}

    def join(self, states: Sequence[Field]) -> None:
        """Take the sums of several ranks."""
        self.statistics.join([state["statistics"] for state in states])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.statistics.load_state_dict(state["statistics"])
        self._users = Field(state)["users"].integer()
        if self._users == 0:
            self.detach()


class ActivationRanked(Gathering):
    """Ranks filters by their activations in training: the outputs of whichever module follows (see `sites`).

    The first ranking needs a training forward pass before it: start the policy at epoch 1 or later.
    """

    def __post_init__(self) -> None:
        """Start without knowing where to look."""
        super().__post_init__()
        self._sites: dict[str, Site] = {}

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together, and weights of layers that cannot be watched."""
        return apart(super().problems(args, shapes), unwatched(args, shapes), hooks_left_out(cls.__name__, shapes))

    def attach(self, model: nn.Module) -> None:
        """Look for the activations in the first training forward pass; watch them from the second on."""
        refuse_compiled(type(self).__name__, model)
        self._model = model
        self._dims = {name: channel_dim(name, model) for name in self._groups}
        self._handles = [Finder(model, self._groups, self._watch)]

    def copied(self, model: nn.Module) -> None:
        """Watch the model of a copy, at the places that are known."""
        super().copied(model)
        if self._users and self._sites:
            self._watch(self._sites)

    def _watch(self, sites: Mapping[str, Site]) -> None:
        self._sites = dict(sites)
        self.detach()
        self._handles = [Follower(self._model, self._sites, self._see)]

    def _see(self, name: str, activation: Tensor) -> None:
        by_filter = activation.transpose(0, self._dims[name]).flatten(1)
        self.statistics.add(name, self.measure(by_filter), by_filter.shape[1])

    def measure(self, activations: Tensor) -> Tensor:
        """Return the sum of the statistic over the activations of each filter: (filters, activations) -> (filters)."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, and where they come from."""
        sites = {name: {"modules": list(site.modules), "rectify": site.rectify} for name, site in self._sites.items()}
        return {**super().state_dict(), "sites": sites}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        sites = {name: _site(stored) for name, stored in Field(state)["sites"].mapping().items()}
        if sites:
            self._watch(sites)
        super().load_state_dict(state)


def _site(stored: Field) -> Site:
    return Site(tuple(module.text() for module in stored["modules"].items()), stored["rectify"].flag())


class APoZ(ActivationRanked):
    """The average percentage of zeros (Hu et al. 2016): the highest are pruned."""

    def measure(self, activations: Tensor) -> Tensor:
        """Return the number of zeros of each filter."""
        return (activations == 0).sum(1)

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return the share of activations that are not zero."""
        zeros = self.statistics.mean(name)
        return None if zeros is None else 1 - zeros


class MeanActivation(ActivationRanked):
    """The mean activation (Molchanov et al. 2017): the lowest are pruned."""

    direction = "least active filters"

    def measure(self, activations: Tensor) -> Tensor:
        """Return the sum of the activations of each filter."""
        return activations.sum(1)

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return the mean activation."""
        return self.statistics.mean(name)


class Taylor(Gathering):
    """The change of the loss without a filter, to first order (Molchanov et al. 2017): |sum of weight x gradient|.

    It is averaged over the minibatches since the last ranking; the smallest are pruned.
    """

    direction = "filters whose weight x gradient is nearest to zero"

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together, and weights without gradients."""
        return apart(super().problems(args, shapes), without_gradients(args, shapes))

    def attach(self, model: nn.Module) -> None:
        """Watch the gradients of the listed weights."""
        self._handles = [self._watch(name, model.get_parameter(name)) for name in self._groups]

    def _watch(self, name: str, parameter: nn.Parameter) -> RemovableHandle:
        def hook(weight: Tensor) -> None:
            if weight.grad is not None:
                self.statistics.add(name, summed(self._groups[name], weight * weight.grad).abs())

        return after_backward(name, parameter, hook)

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return the mean change of the loss."""
        return self.statistics.mean(name)


@register("pruners")
@dataclass(eq=False)
class ActivationAPoZRankedFilterPruner(APoZ, OneShotFilters):
    """Hides a constant fraction of filters, those with most zeros in their activations (Hu et al. 2016)."""


@register("pruners")
@dataclass(eq=False)
class ActivationAPoZRankedFilterPruner_AGP(APoZ, GradualFilters):  # noqa: N801  (the dialect's name)
    """Like `ActivationAPoZRankedFilterPruner`, along the schedule of `rates.agp`."""


@register("pruners")
@dataclass(eq=False)
class ActivationMeanRankedFilterPruner(MeanActivation, OneShotFilters):
    """Hides a constant fraction of filters, those with the lowest mean activation (Distiller took the highest)."""


@register("pruners")
@dataclass(eq=False)
class ActivationMeanRankedFilterPruner_AGP(MeanActivation, GradualFilters):  # noqa: N801  (the dialect's name)
    """Like `ActivationMeanRankedFilterPruner`, along the schedule of `rates.agp`."""


@register("pruners")
@dataclass(eq=False)
class GradientRankedFilterPruner(Taylor, OneShotFilters):
    """Hides a constant fraction of filters, those whose removal changes the loss least (Molchanov et al. 2017)."""


@register("pruners")
@dataclass(eq=False)
class GradientRankedFilterPruner_AGP(Taylor, GradualFilters):  # noqa: N801  (the dialect's name)
    """Like `GradientRankedFilterPruner`, along the schedule of `rates.agp`."""
