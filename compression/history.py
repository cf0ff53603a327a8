"""When each policy acted, and why one never did."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from .files.checked import Field
from .policies import ScheduledTrainingPolicy
from .steps import Step, when

logger = logging.getLogger(__name__)
Span = tuple[Step, Step]

NO_EPOCHS = (
    "on_minibatch_begin is called, and on_epoch_begin was not: %s would never act; call scheduler.on_epoch_begin(epoch,"
    " optimizer, minibatches_per_epoch) before each epoch, and on_epoch_end after it"
)


class History:
    """The first and the last step at which each policy acted, by the policy's name.

    Attributes:
        spans: first and last step of each policy that acted.
        now: the step that training is at, None before the first.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.spans: dict[str, Span] = {}
        self.now: Step | None = None
        self._epoch: int | None = None
        self._unknown = False
        self._told: set[str] = set()

    def epoch_begins(self, step: Step, active: Iterable[ScheduledTrainingPolicy]) -> None:
        """Note that an epoch's hook is called; `active` are the policies that it calls."""
        self._epoch = step.epoch
        self._note(step, active, "epoch")

    def minibatch_begins(
        self, step: Step, active: Iterable[ScheduledTrainingPolicy], policies: Iterable[ScheduledTrainingPolicy]
    ) -> None:
        """Note that a minibatch's hook is called; warn, once, where no epoch's was and policies wait for it."""
        self._note(step, active, "minibatch")
        if step.minibatch == 0 and self._epoch != step.epoch and NO_EPOCHS not in self._told:
            waiting = [policy.name for policy in policies if _waits_for_epochs(policy, step)]
            if waiting:
                self._told.add(NO_EPOCHS)
                logger.warning(NO_EPOCHS, ", ".join(waiting))

    def tell_idle(self, policies: Iterable[ScheduledTrainingPolicy]) -> None:
        """Warn of each policy that never acted or was cut off, once, and say why: training is over."""
        for policy in () if self._unknown else policies:
            if policy.name in self._told:
                continue
            if policy.name not in self.spans:
                logger.warning("%s never acted: %s", policy.name, self._why_idle(policy))
            elif not (policy.compresses and self._cuts(policy)):
                continue
            self._told.add(policy.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the spans: plain data."""
        return {name: [*span[0].at, *span[1].at] for name, span in self.spans.items()}

    def load_state_dict(self, state: Field) -> None:
        """Take back what `state_dict` gave; a state of before this was kept leaves it unknown who acted."""
        self._unknown = state.value is None
        spans = {} if self._unknown else state.mapping()
        self.spans = {name: _span(steps) for name, steps in spans.items()}

    def _note(self, step: Step, active: Iterable[ScheduledTrainingPolicy], hook: str) -> None:
        self.now = step
        for policy in active:
            if policy.acts_in(hook, step):
                first, _ = self.spans.get(policy.name, (step, step))
                self.spans[policy.name] = first, step

    def _cuts(self, policy: ScheduledTrainingPolicy) -> bool:
        """Return whether training ended before the last time of a policy, which it then says."""
        window = policy.window
        if self.now is None or window.position(self.now) >= window.last:
            return False
        acted = self.spans[policy.name][1]
        logger.warning(
            "%s was cut off: it would act up to %s %s, and acted last in epoch %s, minibatch %s of %s",
            policy.name, window.unit, f"{window.last:,}", *(f"{at:,}" for at in acted.at),
        )  # fmt: skip
        return True

    def _why_idle(self, policy: ScheduledTrainingPolicy) -> str:
        if self.now is None:
            return "no hook of the scheduler was called (see attach, or call the hooks in the training loop)"
        window, now = policy.window, self.now
        if window.position(now) < window.start:
            return (
                f"it begins at {window.unit} {window.start:,}, and training ended in epoch {now.epoch:,}, minibatch"
                f" {now.minibatch:,} of {now.minibatches_per_epoch:,} (is the number of minibatches right?)"
            )
        if _waits_for_epochs(policy, now) and self._epoch is None:
            return "on_epoch_begin was never called"
        return f"no hook was called at a time of its window ({when(window)})"


def _waits_for_epochs(policy: ScheduledTrainingPolicy, step: Step) -> bool:
    """Return whether the policy acts in the hooks of epochs alone."""
    return policy.window.unit == "epoch" and not policy.acts_in("minibatch", step)


def _span(state: Field) -> Span:
    numbers = state.integers(6)
    return Step(*numbers[:3]), Step(*numbers[3:])
