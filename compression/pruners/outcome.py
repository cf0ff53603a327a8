"""What a pruner of structures was asked to hide of a weight, and what it hid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """What one ranking asked and did, for one weight; of data that an account of a run is made from.

    A pruner keeps the outcome of its last ranking in `Pruner.outcomes`, by weight, and gives in `Pruner.expected(view)`
    what a ranking would come to, without scores and without changing anything: before training, say. A policy gives
    both, `PruningPolicy.outcomes` and `PruningPolicy.expected()`, the latter for the last time of its window.

    Attributes:
        structures: how many the weight has: filters, channels, blocks.
        asked: how many were to be hidden, those hidden before included.
        hidden: how many are hidden, never more than asked unless more were hidden before.
        sets: size -> number of the sets that live or die as one; {1: structures} where each is alone.
        left: why biases and norms behind hidden filters are left alone, where they cannot be found.
        why: why fewer are hidden than asked; nothing where as many are.
    """

    structures: int
    asked: int
    hidden: int
    sets: Mapping[int, int] = field(default_factory=dict)
    left: str = ""
    why: str = ""

    @property
    def short(self) -> int:
        """Return how many fewer are hidden than asked."""
        return max(0, self.asked - self.hidden)

    @property
    def shortfall(self) -> str:
        """A sentence that says that fewer are hidden than asked, and why."""
        return f"{self.asked} of {self.structures} structures asked, {self.hidden} hidden: {self.why}"
