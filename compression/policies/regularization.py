"""Runs a regularizer: its loss term at each minibatch, its threshold when asked, its masks or gates' end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from potstill.thinning import Recipe

from ..regularizers import Regularizer, Site
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
        self._stage: Literal["waiting", "active", "finished"] = "waiting"
        self._last_metrics: dict[str, float] = {}

    def bind(self, scheduler: CompressionScheduler, window: Window, name: str) -> None:
        """Join a scheduler; the regularizer resolves its names and checks what it can.

        Raises:
            ValueError: a name matches no parameter, or what the regularizer is for cannot be done.
        """
        super().bind(scheduler, window, name)
        self._weights = dict(scheduler.model.named_parameters())
        self.regularizer.bind(scheduler.model)
        self.regularizer.prepare(Site(scheduler.model, scheduler.graph, window, name))

    def on_epoch_begin(self, moment: Moment) -> None:
        """Begin with the window."""
        self._begin()

    def on_minibatch_begin(self, moment: Moment) -> None:
        """Begin with the window, where it counts minibatches or the loop tells no epochs."""
        self._begin()

    def before_backward_pass(self, moment: Moment, loss: Tensor) -> PolicyLoss:
        """Add the regularizer's term."""
        term = self.regularizer.loss(self._weights, moment.step)
        return PolicyLoss(loss + term, [LossComponent(f"{type(self.regularizer).__name__}_loss", term)])

    @torch.no_grad()
    def on_minibatch_end(self, moment: Moment) -> None:
        """Zero what is below the threshold; at the end of the window keep it so if asked, and end the rest."""
        self.regularizer.after_step(moment.step)
        self._threshold(moment)
        if self.window.ends(moment.step):
            self.finish()

    @torch.no_grad()
    def finish(self) -> None:
        """Make permanent what the regularizer leaves: factors of parameters, masks."""
        if self._stage != "active":
            return
        self._stage = "finished"
        ending = self.regularizer.finish()
        self._last_metrics = self.regularizer.metrics()
        for name, factor in ending.factors.items():
            dense = self.scheduler.masks[name].dense
            for values in [self._weights[name]] + ([] if dense is None else [dense]):
                values.mul_(factor.to(values))
        for name, mask in ending.masks.items():
            self.scheduler.masks.set(self.name, name, mask)

    def metrics(self) -> dict[str, float]:
        """The regularizer's numbers, under the policy's name; after the window those of its end."""
        numbers = self.regularizer.metrics() if self._stage == "active" else self._last_metrics
        return {f"{self.name}.{key}": value for key, value in numbers.items()}

    def before_thinning(self) -> None:
        """Let the regularizer make room."""
        if self._stage == "active":
            self.regularizer.before_thinning()

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Let the regularizer follow the new shapes."""
        if self._stage == "active":
            self.regularizer.after_thinning(recipe)

    def state_dict(self) -> dict[str, Any]:
        """How far the policy is, and the regularizer's own state."""
        return {"stage": self._stage, "metrics": self._last_metrics, "regularizer": self.regularizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; inside of the window the regularizer begins at once."""
        if state["stage"] == "active":
            self._begin()
        self._stage, self._last_metrics = state["stage"], dict(state["metrics"])
        self.regularizer.load_state_dict(state["regularizer"])

    def _begin(self) -> None:
        if self._stage == "waiting":
            self._stage = "active"
            self.regularizer.start()

    def _threshold(self, moment: Moment) -> None:
        keeps = self.args.keep_mask and self.window.ends(moment.step)
        if not keeps and not self._thresholds(moment.step):
            return
        for name, mask in self.regularizer.threshold(self._weights).items():
            if keeps:
                self.scheduler.masks.set(self.name, name, mask)
            else:
                self._weights[name].mul_(mask)

    def _thresholds(self, step: Step) -> bool:
        when = self.args.threshold_at
        if when == "epoch":
            return step.last_of_epoch
        return when == "minibatch" or (when == "end" and self.window.ends(step))
