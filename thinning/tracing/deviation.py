"""Where a second run of a model leaves the first one's track, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .entries import Operation


@dataclass(frozen=True)
class Deviation:
    """A second run left the first one's track at operation number `step`, or just before it.

    The latter where other code failed: in the module `module`, at `place`. `fits`: all shapes of the run are those that
    are left, and other channels are where they should be. `by_data`: values may have led it there, which the removal of
    channels that are not zero changes.
    """

    step: int
    why: str
    module: str | None = None
    place: str = ""
    fits: bool = False
    by_data: bool = False

    @property
    def reached(self) -> tuple[bool, int]:
        """Return how far the run came: shapes are compared first, to the end."""
        return self.fits, self.step

    def text(self, operations: Sequence[Operation]) -> str:
        """Return where and why."""
        return f"{self.place or operations[self.step].place}: {self.why}"

    def at_a_cut(self, cuts: Sequence[int]) -> Deviation:
        """Return the same for an operation that cuts channels at these numbers, which nothing that is known gives."""
        if not cuts:
            return self
        numbers = " and ".join(map(str, cuts))
        return replace(self, why=f"{self.why} (it cuts at {numbers}, which no integer of a module around counts)")


ANOTHER_PATH = "with fewer channels the model's code takes another path"
ANOTHER_NUMBER = "the model's code computes a number from how many channels there are"


class DeviationError(Exception):
    """Ends a second run at its `deviation`."""

    def __init__(self, step: int, why: str) -> None:
        super().__init__(why)
        self.deviation = Deviation(step, why)


class UnequalRowsError(Exception):
    """A number of groups in a second run is not that of the groups that are left."""


class UnfollowedError(Exception):
    """What comes now depends on the data, which removing channels that are not zero has changed."""
