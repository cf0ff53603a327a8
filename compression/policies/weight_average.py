"""Keeps an average of the weights over the last steps: often a better network than that of the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor

from potstill.thinning import Recipe

from ..declare.arguments import Range
from ..declare.registry import register
from ..files.checked import Field
from ..processes.shards import part
from .base import Moment, ScheduledTrainingPolicy

HIGHEST = 0.999999
FIRST, LATER = 1, 10
"""After n steps the decay is at most (1 + n) / (10 + n): the random weights of the beginning are soon forgotten."""


@register("extensions")
class WeightAverage(ScheduledTrainingPolicy):
    """Exponential moving average of all weights and running statistics (Polyak and Juditsky 1992).

    After each step an average becomes decay x average + (1 - decay) x weight, and 0 where the weight is 0: what a mask
    hides is hidden from its average too. Averages are thinned with the network. List it last.

    The network itself goes on with its own weights; `applied` lends it the averages, to validate, and `take` ends with
    them.
    """

    compresses = False

    def __init__(self, decay: Annotated[float, Range(0, HIGHEST)] = 0.999) -> None:
        """Take the decay; an average is over the last 1 / (1 - decay) steps or so.

        Raises:
            ValueError: it is not between 0 and 0.999999.
        """
        if not isinstance(decay, (int, float)) or not 0 <= decay <= HIGHEST:
            raise ValueError(f"decay is {decay!r}: it must be a number between 0 and {HIGHEST}")
        self.decay = decay
        self._updates = 0
        self._averages: dict[str, Tensor] = {}

    def on_minibatch_end(self, moment: Moment) -> None:
        """Follow the weights."""
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Follow the weights by one step; the first time, begin with them."""
        present = self._present()
        if not self._averages:
            self._averages = {name: tensor.detach().clone() for name, tensor in present.items()}
        decay = min(self.decay, (FIRST + self._updates) / (LATER + self._updates))
        averages = [part(average) for average in self._averages.values()]  # of a sharded tensor this rank's own part
        tensors = [part(present[name].detach()) for name in self._averages]
        real = [tensor.is_floating_point() or tensor.is_complex() for tensor in tensors]
        torch._foreach_lerp_(_where(averages, real), _where(tensors, real), 1 - decay)
        for average, tensor, is_real in zip(averages, tensors, real, strict=True):
            if not is_real:  # how many batches a norm has seen
                average.copy_(tensor)
        for name, parameter in self.scheduler.model.named_parameters():
            part(self._averages[name]).mul_(part(parameter) != 0)
        self._updates += 1

    def averages(self) -> dict[str, Tensor]:
        """Return the averages by the names of a state dict, tied tensors under each of theirs; none before a step."""
        if not self._averages:
            return {}
        first = {id(tensor): name for name, tensor in self._present().items()}
        state = self.scheduler.model.state_dict(keep_vars=True)
        masked = self._masked()
        return {name: masked[first[id(tensor)]] for name, tensor in state.items() if id(tensor) in first}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lend the network its averages: meanwhile it computes with them, then its own weights are back to the bit."""
        present = self._present() if self._averages else {}
        own = {name: tensor.detach().clone() for name, tensor in present.items()}
        try:
            _copy(self._masked(), present)
            yield
        finally:
            _copy(own, present)

    def take(self) -> None:
        """Make the averages the network's weights, for good; a later step begins averages anew."""
        if self._averages:
            present, masked, masks = self._present(), self._masked(), self.scheduler.masks
            _copy({name: tensor for name, tensor in masked.items() if name not in masks}, present)
            for name, entry in masks.items():
                factors = 1 if entry.mask is None else entry.mask.where(entry.mask != 0, 1)
                masks.replace(name, masked[name] / factors)
        self._averages, self._updates = {}, 0

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Remove the same channels from the averages; what the weights took of removed constants, they take too."""
        if recipe is None:
            return
        changes = {change.name: change for change in recipe.tensors}
        known = [m for m in recipe.magnitudes if {m.name, m.directions} <= self._averages.keys()]
        factors = {m.name: m.factor(self._averages[m.directions], changes[m.directions]) for m in known}
        for change in recipe.tensors:
            if change.name in self._averages:
                self._averages[change.name] = change.select(self._averages[change.name]).contiguous()
        for name, factor in factors.items():
            self._averages[name] = (self._averages[name].double() * factor).to(self._averages[name].dtype)
        for fold in recipe.folds:
            if fold.name in self._averages:
                self._averages[fold.name].add_(fold.amounts.to(self._averages[fold.name]))
        for norm in recipe.rescalings:
            if norm.name in self._averages:
                self._averages[norm.name] = norm.scaled(self._averages[norm.name])

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, and of how many steps."""
        return {"updates": self._updates, "averages": dict(self._averages)}

    def shared_state(self) -> dict[str, Any]:
        """Return all but running statistics, which each rank has of its own images."""
        parameters = dict(self.scheduler.model.named_parameters())
        averages = {name: tensor for name, tensor in self._averages.items() if name in parameters}
        return {"updates": self._updates, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back; every average must have its weight's shape and type."""
        fields, present = Field(state), self._present()
        stored = fields["averages"].only(present).mapping()
        if stored:
            found = {name: stored[name] if name in stored else fields["averages"][name] for name in present}
            device = {name: tensor.device for name, tensor in present.items()}
            self._averages = {
                name: value.tensor(present[name].shape, present[name].dtype).to(device[name], copy=True)
                for name, value in found.items()
            }
        else:
            self._averages = {}
        self._updates = fields["updates"].integer(most=2**53)

    def _masked(self) -> dict[str, Tensor]:
        """Return the averages without what masks hide now: one may be new since the last step."""
        masks = self.scheduler.masks
        hidden = {name: entry.mask != 0 for name, entry in masks.items() if entry.mask is not None}
        return {name: tensor * hidden[name] if name in hidden else tensor for name, tensor in self._averages.items()}

    def _present(self) -> dict[str, Tensor]:
        """Return parameters and the buffers that a state dict holds, each once."""
        model = self.scheduler.model
        stored = model.state_dict(keep_vars=True)
        return dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n in stored}


def _where(tensors: list[Tensor], chosen: list[bool]) -> list[Tensor]:
    return [tensor for tensor, is_chosen in zip(tensors, chosen, strict=True) if is_chosen]


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)
