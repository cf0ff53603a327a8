"""A constraint on the expected size of the network, kept by a Lagrange multiplier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..steps import Step, Window
from .budget import Budget


def elapsed(window: Window, step: Step) -> float:
    """How much of the window has gone by, in minibatches: from 0 at its first to nearly 1 at its last."""
    length = step.minibatches_per_epoch if window.unit == "epoch" else 1
    start, end = window.start * length, window.end * length
    return (step.index - start) / (end - start)


class Constraint:
    """Draws the expected share of the network down to a goal.

    After Gallego-Posada et al. 2022, "Controlled sparsity via constrained optimization or: how I learned to stop tuning
    penalties and love constraints".
    The loss gets multiplier x (share - goal); the multiplier rises with the violation after each step (gradient ascent)
    and starts again at 0 once the constraint holds. The goal sinks linearly from 1 during the first part of the window:
    then the multiplier stays as small as it can, and the gates that the network needs least close first.

    Attributes:
        multiplier: its value now, a scalar tensor.
    """

    def __init__(self, budget: Budget, goal: float, rate: float, ramp: float) -> None:
        """Take the goal (a share of the budget's total), the multiplier's learning rate, and the ramp.

        Args:
            budget: the size as a function of the gates.
            goal: the share of the size that may stay.
            rate: the multiplier rises by rate x violation at each step.
            ramp: the part of the window in which the goal sinks.
        """
        self.budget, self.goal = budget, goal
        self._rate, self._ramp = rate, ramp
        self.multiplier = torch.zeros(())
        self._violation = torch.zeros(())

    def term(self, probabilities: Tensor, progress: float) -> Tensor:
        """What is added to the loss; `progress` runs from 0 to 1 in the window."""
        reached = min(1.0, progress / self._ramp) if self._ramp else 1.0
        violation = self.budget.share(probabilities) - (1 - (1 - self.goal) * reached)
        self._violation = violation.detach()
        self.multiplier = self.multiplier.to(violation)
        return self.multiplier * violation

    def update(self) -> None:
        """After a step: gradient ascent on the multiplier, or restart where the constraint holds."""
        risen = (self.multiplier + self._rate * self._violation).clamp(min=0)
        self.multiplier = torch.where(self._violation > 0, risen, torch.zeros_like(risen))

    def state_dict(self) -> dict[str, Any]:
        """The multiplier, and the size that shares are of."""
        return {"multiplier": self.multiplier.clone(), "total": self.budget.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.multiplier = state["multiplier"]
        self.budget.total = state["total"]
