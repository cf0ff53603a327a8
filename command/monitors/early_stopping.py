"""`--early-stop`: watches the validation error, says when to stop, and brings back the weights of the best epoch."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import nn

from potstill.compression import CompressionScheduler, Masks, RegularizationPolicy
from potstill.compression.files.checked import Field, reading

from ..errors import UsageError
from .stopping_rules import StoppingRule, lowest_epoch


class EarlyStopping:
    """Applies a rule to the errors of the epochs, and keeps the network of the lowest validation error E_opt.

    Errors are mean losses per image: those of training without the terms of regularizers, as the metrics have them.
    """

    def __init__(
        self, rule: StoppingRule, model: nn.Module, scheduler: CompressionScheduler, first_epoch: int = 0
    ) -> None:
        """Take the rule, and the network with the masks that belong to it; epochs before the first do not count."""
        self.rule, self.model, self.scheduler, self.first_epoch = rule, model, scheduler, first_epoch
        self.training: list[float] = []
        self.validation: list[float] = []
        self.reason: str | None = None
        self._best: dict[str, Any] | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of E_opt; None before the first that counts."""
        return self.first_epoch + lowest_epoch(self.validation) if self.validation else None

    def begin_at(self, epoch: int) -> None:
        """Let no epoch before this one count: nobody watched."""
        self.first_epoch = max(self.first_epoch, epoch)

    def after_epoch(self, epoch: int, training: float, validation: float) -> None:
        """Take an epoch's errors, keep the network if they are the lowest, and decide whether to stop (`reason`)."""
        if epoch < self.first_epoch:
            return
        self.training.append(training)
        self.validation.append(validation if math.isfinite(validation) else math.inf)
        # Masks and gates belong to the weights: those of another epoch would hide other ones.
        if self.best_epoch == epoch:
            now = {"state_dict": self.model.state_dict(), "scheduler": self.scheduler.state_dict()}
            self._best = copy.deepcopy(now)
        self.reason = self.rule.reason(self.training, self.validation)

    def restore_best(self) -> None:
        """Give the network the weights and masks of the best epoch.

        Raises:
            CheckpointError: they come from a checkpoint and do not fit.
        """
        if self._best is None:
            return
        with reading("early_stopping.best"):
            self.model.load_state_dict(self._best["state_dict"])
            self.scheduler.load_state_dict(self._best["scheduler"])

    def __str__(self) -> str:
        """Say why training ended, and which epoch's weights are taken."""
        epoch = self.best_epoch
        if epoch is None:
            return "early stopping: no epoch counted; the weights are those of the last"
        why = self.reason or "trained to the last epoch"
        lowest = min(self.validation)
        return f"early stopping: {why}; restored the weights of epoch {epoch}: lowest validation loss, {lowest:.4f}"

    def state(self) -> dict[str, Any]:
        """Return errors, the reason to stop and the best network, for a checkpoint."""
        return {
            "first_epoch": self.first_epoch,
            "training": self.training,
            "validation": self.validation,
            "reason": self.reason,
            "best": self._best,
        }

    def restore(self, state: Field) -> None:
        """Take back what `state` gave; the rule has its say again, since it may be another one now.

        Raises:
            CheckpointError: it is damaged.
        """
        self.first_epoch = state["first_epoch"].integer()
        self.training = [error.number() for error in state["training"].items()]
        self.validation = [error.number(finite=False) for error in state["validation"].items()]
        if len(self.training) != len(self.validation):
            raise state["training"].error("as many errors as in validation")
        self._best = self._checked(state["best"]) if self.validation else None
        self.reason = self.rule.reason(self.training, self.validation) if self.validation else None

    def _checked(self, best: Field) -> dict[str, Any]:
        """Return the best network so far, checked: it is needed when training has ended, too late to find out."""
        own = self.model.state_dict()
        theirs = best["state_dict"].only(own)
        for name, tensor in own.items():
            theirs[name].tensor(tensor.shape, tensor.dtype, finite=False)
        with reading(best.path):
            Masks(copy.deepcopy(self.model)).load_state_dict(best["scheduler"]["masks"].value)
        return {name: value.value for name, value in best.mapping().items()}


def first_epoch_to_watch(scheduler: CompressionScheduler, epochs: int, minibatches: int) -> int:
    """Return the first epoch after whose begin the schedule prunes and thins no more.

    Before, the network is another one, larger and usually better, and taking its weights would undo the schedule. The
    ends of regularizers (of gates, for example) count too, unless they last as long as training.

    Raises:
        UsageError: the schedule changes the network up to the end of training.
    """
    first = 0
    for policy in scheduler.policies:
        last = policy.window.epoch_of(policy.window.last, minibatches)
        lasts = isinstance(policy, RegularizationPolicy) and last >= epochs - 1
        if policy.compresses and not lasts:
            first = max(first, last)
    if epochs > 0 and first >= epochs - 1 and first > 0:
        raise UsageError(
            f"--early-stop: the schedule changes the network until epoch {first}, the last one: there is nothing to "
            f"choose from before --epochs {first + 2}"
        )
    return first
