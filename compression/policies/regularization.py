"""Runs a regularizer: its loss term at each minibatch, its threshold when asked, its masks at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..regularizers import Regularizer
from ..steps import Step, Window
from .base import LossComponent, Moment, PolicyLoss, ScheduledTrainingPolicy

if TYPE_CHECKING:
    from ..scheduler import CompressionScheduler


@dataclass(frozen=True)
class RegularizerArgs:
    """The `args` of a regularizer's policy.

    Attributes:
        keep_mask: when the window ends, what the threshold zeroes becomes a permanent mask.
        threshold_at: when the threshold acts: after each `minibatch`, after the last one of each active `epoch`, at the
            `end` of the window, or `never`.
    """

    keep_mask: bool = False
    threshold_at: Literal["minibatch", "epoch", "end", "never"] = "minibatch"


class RegularizationPolicy(ScheduledTrainingPolicy):
    """Adds a regularizer's term to the loss, and zeroes what falls below its threshold."""

    def __init__(self, regularizer: Regularizer, args: RegularizerArgs | None = None) -> None:
        """Take the regularizer and how its threshold behaves."""
        self.regularizer, self.args = regularizer, args or RegularizerArgs()

    def bind(self, scheduler: CompressionScheduler, window: Window, name: str) -> None:
        """Join a scheduler; the regularizer resolves its names.

        Raises:
            ValueError: a name matches no parameter.
        """
        super().bind(scheduler, window, name)
        self._weights = dict(scheduler.model.named_parameters())
        self.regularizer.bind(scheduler.model)

    def before_backward_pass(self, moment: Moment, loss: Tensor) -> PolicyLoss:
        """Add the regularizer's term."""
        term = self.regularizer.loss(self._weights, moment.step)
        return PolicyLoss(loss + term, [LossComponent(f"{type(self.regularizer).__name__}_loss", term)])

    @torch.no_grad()
    def on_minibatch_end(self, moment: Moment) -> None:
        """Zero what is below the threshold; at the end of the window keep it so if asked."""
        keeps = self.args.keep_mask and self.window.ends(moment.step)
        if not keeps and not self._thresholds(moment.step):
            return
        for name, mask in self.regularizer.threshold(self._weights).items():
            if keeps:
                self.scheduler.masks.set(self.name, name, mask)
            else:
                self._weights[name].mul_(mask)

    def state_dict(self) -> dict[str, Any]:
        """The regularizer's own state."""
        return self.regularizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the regularizer's own state."""
        self.regularizer.load_state_dict(state)

    def _thresholds(self, step: Step) -> bool:
        when = self.args.threshold_at
        if when == "epoch":
            return step.last_of_epoch
        return when == "minibatch" or (when == "end" and self.window.ends(step))
