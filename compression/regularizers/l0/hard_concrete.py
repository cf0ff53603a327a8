"""The hard-concrete distribution of gates.

Louizos, Welling and Kingma 2018, "Learning sparse neural networks through L0 regularization", eq. 9 to 13.
A binary concrete variable s, stretched to (low, high) and cut to [0, 1], is exactly 0 and exactly 1 with positive
probability, and yet differentiable in `log_alpha`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HardConcrete:
    """The distribution of gates with the given temperature and stretch; `log_alpha` is a tensor of any shape.

    Raises:
        ValueError: the temperature is not positive, or the stretch does not reach beyond 0 and 1.
    """

    # The values of the paper's experiments.
    temperature: float = 2 / 3
    low: float = -0.1
    high: float = 1.1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature:g}")
        if self.low >= 0 or self.high <= 1:
            raise ValueError(f"stretch must reach from below 0 to above 1, not from {self.low:g} to {self.high:g}")

    def location(self, droprate: float) -> float:
        """Return the `log_alpha` of a gate whose concrete variable is below 1/2 with probability `droprate`."""
        # P(s < 1/2) = sigmoid(-log_alpha), whatever the temperature: at s = 1/2 the logistic noise equals -log_alpha.
        return math.log((1 - droprate) / droprate)

    def sample(self, log_alpha: Tensor, noise: Tensor) -> Tensor:
        """Return gates in [0, 1] (eq. 10 and 11).

        Args:
            log_alpha: the locations.
            noise: log u - log(1 - u) for u uniform in (0, 1), of a shape that broadcasts with `log_alpha`.
        """
        # Reparametrised: the noise has no parameters, so the gradient reaches `log_alpha` through the sample itself.
        return self._stretched(torch.sigmoid((noise + log_alpha) / self.temperature))

    def deterministic(self, log_alpha: Tensor) -> Tensor:
        """Return the gates of evaluation (eq. 13)."""
        # Eq. 13 has no temperature: with the values above a gate with log_alpha from -2.40 (-log 11) to -1.60 is open
        # here, though more than half of its samples are 0.
        return self._stretched(torch.sigmoid(log_alpha))

    def open_probability(self, log_alpha: Tensor) -> Tensor:
        """Return the probability of a gate that is not 0 (eq. 12)."""
        # P(gate > 0) is the mass of s above the point that the stretch takes to 0, s = -low / (high - low).
        return torch.sigmoid(log_alpha - self.temperature * math.log(-self.low / self.high))

    def position(self, gate: float) -> float:
        """Return the `log_alpha` whose deterministic gate just reaches `gate`, in [0, 1].

        At 0 the gate closes below it.
        """
        # `deterministic` turned round: undo the stretch, then the sigmoid.
        share = (gate - self.low) / (self.high - self.low)
        return math.log(share / (1 - share))

    def _stretched(self, share: Tensor) -> Tensor:
        return (share * (self.high - self.low) + self.low).clamp(0, 1)
