"""What policies know of the scheduler that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from potstill.thinning import ChannelGraph, Recipe

from ..masks import Masks
from ..processes.ranks import Ranks
from .joined import Joined


class Host(Protocol):
    """The part of a `CompressionScheduler` that policies use."""

    model: nn.Module
    masks: Masks
    ranks: Ranks
    example_inputs: Any
    goes_on: bool

    @property
    def policies(self) -> Sequence[Any]:
        """All policies of the scheduler, in order."""

    @property
    def joined(self) -> Joined:
        """The policies by what a new one may share with them."""

    def graph(self) -> ChannelGraph | None:
        """Return the channel graph, where the model can be traced."""

    def thin(
        self,
        optimizer: Optimizer | None = None,
        *,
        allow_inexact: bool = False,
        round_to: int = 1,
        add_bias: bool = False,
    ) -> Recipe:
        """Remove dead channels."""
