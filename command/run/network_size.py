"""Two words for how far compression is: what is zero, and what thinning would remove. In percent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from potstill.compression import CompressionScheduler, sparsity
from potstill.compression.parts.claims import Goal
from potstill.thinning import outlook


@dataclass(frozen=True)
class NetworkSize:
    """How far compression is, in percent.

    Attributes:
        zeros: of the parameters that there are, those that are 0.
        gone: of the parameters that there were, those that thinning has removed or would remove now.
    """

    zeros: float
    gone: float


class SizeMeter:
    """Measures the two; what thinning would remove is found anew only where other weights are zero than before."""

    def __init__(self, scheduler: CompressionScheduler) -> None:
        """Take the scheduler, with its network."""
        self._scheduler = scheduler
        self._counts: list[int] = []
        self._left = 0

    def measure(self) -> NetworkSize:
        """Return zeros and gone of the network as it is now."""
        model = self._scheduler.model
        counts = [int(p.count_nonzero()) for p in model.parameters()]
        if counts != self._counts:
            self._counts = counts
            self._left = outlook(model, self._scheduler.example_inputs).parameters[1]
        recipes = self._scheduler.recipes
        dense = recipes[0].parameters[0] if recipes else parameter_count(model)
        return NetworkSize(100 * sparsity(model), 100 * (1 - self._left / dense))


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def acting_gates(scheduler: CompressionScheduler) -> str:
    """Return what to say of gates that act now: how small the network is expected to be, is now, and shall be."""
    metrics, told = scheduler.metrics(), []
    for policy in scheduler.policies:
        expected, now = (metrics.get(f"{policy.name}.{key}") for key in ("expected_sparsity", "gated_sparsity"))
        if expected is not None and now is not None and tuple(policy.own_parameters()):
            goal = _percent(policy.goal())
            told.append(
                f"{policy.name} act: {100 * expected:.2f} % gone expected, {100 * now:.2f} % now{goal}; validation is"
                " of the gated network, not of the one that remains"
            )
    return "; ".join(told)


def _percent(goal: Goal | None) -> str:
    if goal is None:
        return ""
    of = "" if goal.unit == "parameters" else f" of the {goal.unit}"
    return f", goal {100 * goal.asked / goal.of:.2f} %{of}"
