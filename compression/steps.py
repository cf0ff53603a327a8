"""Time: where training stands (`Step`), and when a policy acts (`Window`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True)
class Step:
    """Where training stands. Epochs and minibatches count from 0; epochs are absolute, also after a resume."""

    epoch: int
    minibatch: int = 0
    minibatches_per_epoch: int = 1

    @property
    def at(self) -> tuple[int, int, int]:
        """The step as a tuple."""
        return self.epoch, self.minibatch, self.minibatches_per_epoch

    @property
    def index(self) -> int:
        """Minibatches since the start of training."""
        return self.epoch * self.minibatches_per_epoch + self.minibatch

    @property
    def last_of_epoch(self) -> bool:
        """Return whether this is the epoch's last minibatch."""
        return self.minibatch + 1 >= self.minibatches_per_epoch


@dataclass(frozen=True)
class Window:
    """When a policy acts: at `times`, counted in epochs or in minibatches since the start of training.

    `start` and `end` bound the whole of it (end exclusive), `frequency` is the distance of two times (1 for a list).
    """

    times: Sequence[int]
    unit: Literal["epoch", "minibatch"] = "epoch"
    end: int = 0
    frequency: int = 1

    @classmethod
    def between(cls, start: int, end: int, frequency: int = 1, unit: Literal["epoch", "minibatch"] = "epoch") -> Window:
        """Return times `start, start + frequency, ...` below `end`.

        Raises:
            ValueError: the window is empty, or the frequency does not fit into it.
        """
        problems = [problem for problem in (empty(start, end), unfit(start, end, frequency)) if problem]
        if problems:
            raise ValueError("; ".join(problems))
        return cls(range(start, end, frequency), unit, end, frequency)

    @classmethod
    def at(cls, times: Sequence[int], unit: Literal["epoch", "minibatch"] = "epoch") -> Window:
        """Return exactly the given times.

        Raises:
            ValueError: there are none, one is negative, or they do not rise.
        """
        if not times or times[0] < 0 or not rising(times):
            raise ValueError(f"a list of times must be rising and not empty, not {list(times)}")
        return cls(tuple(times), unit, times[-1] + 1)

    @property
    def start(self) -> int:
        """The first time."""
        return self.times[0]

    @property
    def last(self) -> int:
        """The last time."""
        return self.times[-1]

    def epoch_of(self, time: int, minibatches: int = 1) -> int:
        """Return the epoch of a time on this window's clock, where so many minibatches make an epoch."""
        return time // (1 if self.unit == "epoch" else minibatches)

    def position(self, step: Step) -> int:
        """Return the step on this window's clock."""
        return step.epoch if self.unit == "epoch" else step.index

    def covers(self, step: Step) -> bool:
        """Return whether the policy is active at the step.

        On each minibatch of an active epoch, at each active minibatch.
        """
        return self.position(step) in self.times

    def ends(self, step: Step) -> bool:
        """Return whether the step is the last at which the policy is active."""
        return self.position(step) == self.last and (self.unit == "minibatch" or step.last_of_epoch)

    def over(self, step: Step) -> bool:
        """Return whether the step lies behind the window."""
        return self.position(step) >= self.end

    def progress(self, step: Step) -> float:
        """Return how far the window is: 0 at its first time, 1 at its last (1 where there is only one)."""
        span = self.last - self.start
        return (self.position(step) - self.start) / span if span else 1.0


def when(window: Window) -> str:
    """Return `epochs 0-29, every 2`: the window, its last time included; or the times of a list."""
    if window.end - window.start == 1:
        return f"{window.unit} {window.start}"
    ranged = isinstance(window.times, range)
    times = f"{window.start}-{window.end - 1}" if ranged else ", ".join(map(str, window.times))
    units = {"epoch": "epochs", "minibatch": "minibatches"}[window.unit]
    return f"{units} {times}{f', every {window.frequency}' if window.frequency != 1 else ''}"


def empty(start: int, end: int) -> str | None:
    """Return what is wrong with a range of times that has none, or None."""
    return None if 0 <= start < end else f"a window needs 0 <= start < end, not {start} to {end}"


def unfit(start: int, end: int, frequency: int) -> str | None:
    """Return what is wrong with a frequency in a range of times, or None.

    It may be the range that is the wrong way round.
    """
    if 0 < frequency <= max(abs(end - start), 1):
        return None
    fitting = f": 1 to {end - start}" if start < end else ""
    return f"a frequency of {frequency} does not fit into {start} to {end}{fitting}"


def rising(times: Sequence[int]) -> bool:
    """Return whether each time is later than the one before."""
    return all(before < after for before, after in pairwise(times))
