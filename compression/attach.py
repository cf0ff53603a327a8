"""Runs a scheduler from an optimizer's own steps, so that a training loop needs no hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer


class Hooks(Protocol):
    """What a scheduler offers a training loop."""

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """See `CompressionScheduler.on_epoch_begin`."""

    def on_minibatch_begin(self, *args: Any, **kwargs: Any) -> None:
        """See `CompressionScheduler.on_minibatch_begin`."""

    def before_backward_pass(self, *args: Any, **kwargs: Any) -> Any:
        """See `CompressionScheduler.before_backward_pass`."""

    def before_parameter_optimization(self, *args: Any, **kwargs: Any) -> None:
        """See `CompressionScheduler.before_parameter_optimization`."""

    def on_minibatch_end(self, *args: Any, **kwargs: Any) -> None:
        """See `CompressionScheduler.on_minibatch_end`."""

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """See `CompressionScheduler.on_epoch_end`."""


class Attachment:
    """Calls a scheduler's hooks around each `optimizer.step()`.

    Terms of regularizers are added as gradients just before the step, which is the same as adding them to the loss.
    Distillation weighs the loss itself: with it, call `backward` on `attachment.loss(loss)`. An epoch is
    `minibatches_per_epoch` steps; with gradient accumulation count steps, not batches.

    Attributes:
        steps: optimizer steps since the start of training; set it when a run goes on.
        metrics: results for learning-rate schedulers that follow them: `{"min": validation loss, "max": top1}`.
    """

    def __init__(
        self, scheduler: Hooks, optimizer: Optimizer, minibatches_per_epoch: int, steps: int = 0
    ) -> None:
        """Attach; `CompressionScheduler.attach` does it.

        Raises:
            ValueError: an epoch has no minibatches.
        """
        if minibatches_per_epoch < 1:
            raise ValueError(f"minibatches_per_epoch must be at least 1, not {minibatches_per_epoch}")
        self.scheduler, self.optimizer, self.per_epoch = scheduler, optimizer, minibatches_per_epoch
        self.steps = steps
        self.metrics: Mapping[str, float] = {}
        self._weighed = False
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        self._begin()

    def loss(self, loss: Tensor) -> Tensor:
        """The loss to differentiate: weighed, and with the terms of all policies, which are not added again."""
        epoch, minibatch = divmod(self.steps, self.per_epoch)
        self._weighed = True
        return self.scheduler.before_backward_pass(epoch, minibatch, self.per_epoch, loss, self.optimizer)

    def remove(self) -> None:
        """Detach; masks are no longer applied."""
        for handle in self._handles:
            handle.remove()

    def _begin(self) -> None:
        epoch, minibatch = divmod(self.steps, self.per_epoch)
        if minibatch == 0:
            self.scheduler.on_epoch_begin(epoch, self.optimizer, self.per_epoch)
        self.scheduler.on_minibatch_begin(epoch, minibatch, self.per_epoch, self.optimizer)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        epoch, minibatch = divmod(self.steps, self.per_epoch)
        if not self._weighed:
            with torch.enable_grad():
                nothing = torch.zeros((), device=optimizer.param_groups[0]["params"][0].device)
                terms = self.scheduler.before_backward_pass(epoch, minibatch, self.per_epoch, nothing, optimizer)
                if terms.requires_grad:
                    terms.backward(_scale(optimizer))
        self._weighed = False
        self.scheduler.before_parameter_optimization(epoch, minibatch, self.per_epoch, optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        epoch, minibatch = divmod(self.steps, self.per_epoch)
        self.scheduler.on_minibatch_end(epoch, minibatch, self.per_epoch, optimizer)
        if minibatch + 1 == self.per_epoch:
            self.scheduler.on_epoch_end(epoch, optimizer, self.metrics, self.per_epoch)
        self.steps += 1
        self._begin()


def _scale(optimizer: Optimizer) -> Tensor | None:
    """What the gradients are still multiplied by: fused optimizers divide by a loss scaler's factor within the step."""
    scale = getattr(optimizer, "grad_scale", None)
    return scale.reshape(()) if isinstance(scale, Tensor) else None
