"""Brings the weights that survived pruning back to their values of an earlier epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from potstill.thinning import Recipe

from ..declare.registry import register
from ..files.checked import Field
from .base import Moment, ScheduledTrainingPolicy


@register("extensions")
class Rewinder(ScheduledTrainingPolicy):
    """Keeps all weights at the first of its times, and brings the surviving ones back to them at each later one.

    With iterative pruning between the times these are lottery tickets with rewinding (Frankle et al. 2020, Linear mode
    connectivity and the lottery ticket hypothesis). List it after the pruners of its epochs: what they hide stays 0.
    Running statistics stay, and follow within some minibatches; learning rates are those of the schedule.
    """

    compresses = False

    def __init__(self, reset_optimizer: bool = True) -> None:
        """Say whether what the optimizer keeps of each weight (momentum, averages) begins anew with it."""
        self.reset_optimizer = reset_optimizer
        self._kept: dict[str, Tensor] = {}

    def on_epoch_begin(self, moment: Moment) -> None:
        """Keep the weights, or bring them back."""
        self._act(moment)

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Do the same where the times are minibatches."""
        if self.window.unit == "minibatch":
            self._act(moment)

    @torch.no_grad()
    def _act(self, moment: Moment) -> None:
        masks, present = self.scheduler.masks, self._present()
        masks.restore_dense()  # also what a soft mask hides goes back
        if not self._kept:
            self._kept = {name: tensor.detach().clone() for name, tensor in present.items()}
        else:
            for name, tensor in present.items():
                tensor.copy_(self._kept[name])
            if self.reset_optimizer and moment.optimizer is not None:
                for group in moment.optimizer.param_groups:
                    for parameter in group["params"]:
                        moment.optimizer.state.pop(parameter, None)
        masks.apply()

    def _present(self) -> dict[str, Tensor]:
        return dict(self.scheduler.model.named_parameters())

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Remove the same channels from what was kept."""
        selectors = recipe.selectors() if recipe is not None else {}
        self._kept = {name: selectors.get(name, _all)(tensor) for name, tensor in self._kept.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept."""
        return {"kept": dict(self._kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back; every tensor must have its parameter's shape."""
        stored = Field(state)["kept"].mapping()
        present = self._present()
        self._kept = {name: value.tensor(present[name].shape) for name, value in stored.items() if name in present}


def _all(tensor: Tensor) -> Tensor:
    return tensor
