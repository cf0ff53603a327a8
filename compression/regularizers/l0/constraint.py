"""A constraint on the expected size of the network, kept by a Lagrange multiplier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...files.checked import Field
from ...steps import Step, Window
from .budget import Budget

GAIN = 50.0
"""Part of the multiplier that is proportional to the violation, which is at most 1."""


def steps_in(window: Window, step: Step) -> int:
    """Return the window's length in minibatches."""
    return (window.end - window.start) * (step.minibatches_per_epoch if window.unit == "epoch" else 1)


def steps_left(window: Window, step: Step) -> int:
    """Return how many minibatches the window has yet, with this one."""
    return round(steps_in(window, step) * (1 - elapsed(window, step)))


def elapsed(window: Window, step: Step) -> float:
    """Return how much of the window has gone by, in minibatches: from 0 at its first to nearly 1 at its last."""
    # A window in epochs counts minibatches too, so that the goal sinks evenly and not by jumps at epochs.
    start = window.start * (step.minibatches_per_epoch if window.unit == "epoch" else 1)
    return (step.index - start) / steps_in(window, step)


class Constraint:
    """Draws the expected share of the network down to a goal.

    After Gallego-Posada et al. 2022, "Controlled sparsity via constrained optimization or: how I learned to stop tuning
    penalties and love constraints".
    The loss gets (multiplier + gain x violation) x violation, where the violation is share - goal. The multiplier rises
    with the violation after each step (gradient ascent) and starts again at 0 once the constraint holds. The other part
    acts at once, where the multiplier alone would be late and then go too far (Sohrabi et al. 2024, "On PI controllers
    for updating Lagrange multipliers in constrained optimization"): in a window of 84 steps the size at the end was
    within 0.01 of the goal with it and 0.03 to 0.1 off without. The goal sinks linearly from 1 during the first part of
    the window, so that the force stays small and the gates that the network needs least close first.

    Attributes:
        multiplier: its value now, a scalar tensor.
    """

    def __init__(self, budget: Budget, goal: float, rate: float, ramp: float, measured: bool = False) -> None:
        """Take the goal (a share of the budget's total), the multiplier's learning rate, and the ramp.

        Args:
            budget: the size as a function of the gates.
            goal: the share of the size that may stay.
            rate: the multiplier rises by rate x violation at each step.
            ramp: the part of the window in which the goal sinks.
            measured: the size is a time: a second look at the same network would find another.
        """
        self.budget, self.goal, self.measured = budget, goal, measured
        self._rate, self._ramp = rate, ramp
        self.multiplier = torch.zeros((), device="cpu")
        self._violation = torch.zeros((), device="cpu")

    def term(self, probabilities: Tensor, progress: float) -> Tensor:
        """Return what is added to the loss; `progress` runs from 0 to 1 in the window."""
        reached = min(1.0, progress / self._ramp) if self._ramp else 1.0
        # The goal of now: 1 at first, `goal` from the end of the ramp on.
        violation = self.budget.share(probabilities) - (1 - (1 - self.goal) * reached)
        self._violation = violation.detach()  # the force itself has no gradient: only the size is to change
        self.multiplier = self.multiplier.to(violation)
        # A constraint that holds pushes nothing (never below 0): gates may open again, and the size rises to the goal.
        return (self.multiplier + GAIN * self._violation).clamp(min=0) * violation

    def size(self, is_open: Tensor) -> float:
        """Return the share of the network with the open ones (bool) of the gates."""
        return self.budget.share(is_open.double()).item()

    def update(self) -> None:
        """Raise the multiplier by gradient ascent after a step, or restart it where the constraint holds."""
        # The restart at 0 ("dual restarts" of Gallego-Posada et al.) lets go at once of the force that was summed up
        # while the constraint was violated; else it would shrink the network far below the goal.
        risen = (self.multiplier + self._rate * self._violation).clamp(min=0)
        self.multiplier = torch.where(self._violation > 0, risen, torch.zeros_like(risen))

    def follow(self, before: Constraint) -> float:
        """Go on where another constraint stood, for a network that was thinned since.

        Returns the size of the network now, relative to the one that shares are of.
        """
        now = self.budget.total / before.budget.total
        self.multiplier, self.budget.total = before.multiplier.clone(), before.budget.total
        if self.measured:
            self.goal = before.goal
        return now

    def state_dict(self) -> dict[str, Any]:
        """Return the multiplier, and the size that shares are of; of a measured size all of it, and the goal."""
        state: dict[str, Any] = {"multiplier": self.multiplier.clone(), "total": self.budget.total}
        return {**state, "goal": self.goal, "budget": self.budget.state_dict()} if self.measured else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        fields = Field(state)
        self.multiplier = fields["multiplier"].tensor(())
        if self.measured:
            self.goal = fields["goal"].number()
            self.budget.load_state_dict(state["budget"])
        else:
            self.budget.total = max(fields["total"].number(), 1.0)
