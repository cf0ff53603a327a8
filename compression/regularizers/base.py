"""What a regularizer is: a loss term, and optionally a threshold below which weights are zero."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..steps import Step


class Regularizer(ABC):
    """Adds to the loss what draws weights towards zero."""

    def bind(self, model: nn.Module) -> None:  # noqa: B027  (nothing to resolve is fine)
        """Resolve names against the model. Called once, before the first step."""

    @abstractmethod
    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """The term to add to the loss: a scalar with gradient.

        Args:
            weights: all parameters of the model by name.
            step: where training stands.
        """

    def threshold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks of what is small enough to be zero now, by parameter. Without a threshold there are none."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume beside masks and weights: tensors and plain data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027  (most have no state)
        """Take back what `state_dict` gave."""
