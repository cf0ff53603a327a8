"""Runs a scheduler from an optimizer's own steps, so that a training loop needs no hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from .masks import Masks
from .own_optimizer import first_step, must_train
from .policies import LossComponent, NotYet, ScheduledTrainingPolicy


class Hooks(Protocol):
    """What a scheduler offers a training loop."""

    model: nn.Module
    masks: Masks
    attachment: Attachment | None
    begun: tuple[int, ...] | None
    policies: list[ScheduledTrainingPolicy]

    def own_parameters(self) -> Iterable[Tensor]:
        """See `CompressionScheduler.own_parameters`."""
        ...

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

    Terms of regularizers are added as gradients just before the step: where the loop has clipped gradients, after that.
    Distillation weighs the loss itself: with it, call `backward` on `attachment.loss(loss)`. An epoch is
    `minibatches_per_epoch` steps; with gradient accumulation count steps, not batches. With `step(closure)` all of it
    happens at each call of the closure.

    Attributes:
        steps: optimizer steps since the start of training; set it when a run goes on.
        metrics: results for learning-rate schedulers that follow them: `{"min": validation loss, "max": top1}`.
        components: the names and values of the terms that policies added to the last step's loss.
        ended: the number of epochs that have ended; set it with `steps` where the loop calls the epochs.
    """

    def __init__(
        self,
        scheduler: Hooks,
        optimizer: Optimizer,
        minibatches_per_epoch: int,
        steps: int | None = None,
        calls_epochs: bool = False,
        scaler: GradScaler | None = None,
    ) -> None:
        """Attach; `CompressionScheduler.attach` does it.

        `scaler` is the loop's loss scaler; without it, it is looked for among the callers of each step.
        With `calls_epochs` an epoch does not begin by itself behind the last step of the one before: the loop calls
        `begin_epoch` and `end_epoch`, and validates in between.

        Without `steps` they are those of the scheduler's state; with 0 its schedule begins here, whatever the optimizer
        has done before.

        Raises:
            TypeError: the optimizer is none of torch's.
            ValueError: an epoch has no minibatches, the number of steps is negative, the scheduler is attached, the
                optimizer is of another model, or it has made steps of which the scheduler knows nothing.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"attach takes one torch.optim.Optimizer, not a {type(optimizer).__name__}")
        numbers = {"minibatches_per_epoch": (minibatches_per_epoch, 1), "steps": (0 if steps is None else steps, 0)}
        for name, (value, least) in numbers.items():
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if scheduler.attachment is not None:
            raise ValueError(
                "this scheduler is attached: its steps are those of one optimizer. Call remove() on the first"
                " attachment, or, for a model with several optimizers, the scheduler's hooks in your loop"
            )
        optimizer = _innermost(optimizer)
        must_train(optimizer, scheduler.model, scheduler.own_parameters())
        steps = first_step(optimizer, steps, scheduler.begun, minibatches_per_epoch)
        self.scheduler, self.optimizer, self.per_epoch = scheduler, optimizer, minibatches_per_epoch
        self.steps = steps
        self.calls_epochs, self.scaler = calls_epochs, scaler
        self.ended = steps // minibatches_per_epoch
        self.metrics: Mapping[str, float] = NotYet()
        self.components: list[LossComponent] = []
        self._weighed = False
        scheduler.attachment = self
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        if not calls_epochs and scheduler.begun != self._at:  # the loaded state may be of within this very step
            self._begin()

    @property
    def _at(self) -> tuple[int, int, int]:
        return *divmod(self.steps, self.per_epoch), self.per_epoch

    def __repr__(self) -> str:
        """Return what steps run what, and where training is."""
        epoch, minibatch, per_epoch = self._at
        whose = f"{type(self.optimizer).__name__} runs a {type(self.scheduler).__name__}"
        return f"Attachment: {whose}; epoch {epoch}, minibatch {minibatch} of {per_epoch}"

    def loss(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate: weighed, and with the terms of all policies, which are not added again.

        For steps of one backward pass: with gradient accumulation the terms would be added as often.
        """
        self._weighed = True
        return self._add_terms(loss)

    def begin_epoch(self) -> None:
        """Begin an epoch, or go on with one that was interrupted; the one before ends if nobody has ended it."""
        epoch, minibatch, _ = self._at
        if self.ended < epoch:
            self.end_epoch()
        if minibatch == 0 or self.scheduler.begun != self._at:
            self._begin()

    def end_epoch(self) -> None:
        """End the epoch whose last step was made: learning rates that follow `metrics` see them. Once an epoch."""
        epoch = self.steps // self.per_epoch
        if self.ended < epoch:
            self.scheduler.on_epoch_end(epoch - 1, self.optimizer, self.metrics, self.per_epoch)
            self.metrics = dict(self.metrics)  # from now on they are missed
            self.ended = epoch

    def remove(self) -> None:
        """Detach; masks are no longer applied."""
        for handle in self._handles:
            handle.remove()
        self.scheduler.attachment = None

    def _begin(self) -> None:
        epoch, minibatch, _ = self._at
        if minibatch == 0:
            self.scheduler.on_epoch_begin(epoch, self.optimizer, self.per_epoch)
        self.scheduler.on_minibatch_begin(epoch, minibatch, self.per_epoch, self.optimizer)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Prepare the gradients, or let the closure do that which computes them."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._prepare()
            return None
        return args[:1], {**kwargs, "closure": self._within(closure)}

    def _within(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return the closure, with masks before it and all that changes gradients behind it."""
        again = False

        def evaluate() -> Any:
            nonlocal again
            if again:
                self.scheduler.masks.apply()  # the optimizer has moved the weights since
            again = True
            with torch.enable_grad():
                loss = closure()
            terms = self._prepare()
            return loss + terms.detach() if isinstance(loss, Tensor) and terms is not None else loss

        return evaluate

    def _prepare(self) -> Tensor | None:
        """Add the terms' gradients, unless the loss had them, and stop those of pruned weights; gives the terms."""
        terms = None
        if not self._weighed:
            with torch.enable_grad():
                device = next(p.device for group in self.optimizer.param_groups for p in group["params"])
                nothing = torch.zeros((), device=device)
                _unscale(self.scheduler.own_parameters(), self.scaler, self.optimizer)
                terms = self._add_terms(nothing)
                if terms.requires_grad:
                    terms.backward(_scale(self.optimizer))
        self._weighed = False
        self.scheduler.before_parameter_optimization(*self._at, self.optimizer)
        return terms

    def _add_terms(self, loss: Tensor) -> Tensor:
        """Return the loss with the terms of all policies, which are kept by name."""
        total = self.scheduler.before_backward_pass(*self._at, loss, self.optimizer, return_loss_components=True)
        self.components = total.loss_components
        weighed: Tensor = total.overall_loss
        return weighed

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.scheduler.on_minibatch_end(*self._at, optimizer)
        self.steps += 1
        over = self.steps % self.per_epoch == 0
        if over and not self.calls_epochs:
            self.end_epoch()
        if not over or not self.calls_epochs:
            self._begin()


def _innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that makes the steps, of one that only passes them on (accelerate's), which has no hooks."""
    found: Any = optimizer
    while not hasattr(found, "_optimizer_step_pre_hooks"):
        found = getattr(found, "optimizer", None)
        if found is None:
            raise TypeError(f"a {type(optimizer).__name__} has no step hooks: attach to the one that it works with")
    inner: Optimizer = found
    return inner


def _scale(optimizer: Optimizer) -> Tensor | None:
    """Return what the gradients are still multiplied by.

    Fused optimizers divide by a loss scaler's factor within the step.
    """
    scale = getattr(optimizer, "grad_scale", None)
    return scale.reshape(()) if isinstance(scale, Tensor) else None


def _unscale(parameters: Iterable[Tensor], scaler: GradScaler | None, optimizer: Optimizer) -> None:
    """Divide gradients by the factor of the loss scaler whose step this is, if it is one's.

    It has divided those of the optimizer's own parameters already (fused ones do that themselves, and all keep the
    factor), but knows none of those that regularizers train.
    """
    graded = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if graded and (scaler := scaler or _calling_scaler()) and getattr(optimizer, "grad_scale", None) is None:
        torch._foreach_div_(graded, scaler.get_scale())


def _calling_scaler() -> GradScaler | None:
    """Return the loss scaler whose `step` made the optimizer's: only the call stack tells which it is."""
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self") if frame.f_code.co_name == "step" else None
        if isinstance(caller, GradScaler):
            return caller
        frame = frame.f_back  # type: ignore[assignment]
    return None
