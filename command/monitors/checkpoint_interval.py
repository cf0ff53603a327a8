"""`--checkpoint-every`: so many minibatches, or so many minutes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Interval:
    """`200` minibatches, or `10m`: minutes since the last checkpoint. Without a text, never.

    Minutes are those of this process: when a checkpoint is written does not change what a run computes.
    """

    def __init__(self, text: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the option.

        Raises:
            ValueError: it is neither.
        """
        self.minibatches, self.seconds = _parse(text) if text is not None else (None, None)
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Count from now: a checkpoint was written."""
        self._last = self._clock()

    def is_over(self, minibatch: int) -> bool:
        """Return whether it is time for a checkpoint after this many minibatches of the epoch."""
        if self.seconds is not None:
            return self._clock() - self._last >= self.seconds
        return self.minibatches is not None and minibatch % self.minibatches == 0


def _parse(text: str) -> tuple[int | None, float | None]:
    digits = text.removesuffix("m")
    whole, point, part = digits.partition(".")
    if digits != text and whole.isdecimal() and (part.isdecimal() or not point) and float(digits) > 0:
        return None, 60 * float(digits)
    if digits == text and text.isdecimal() and int(text) > 0:
        return int(text), None
    raise ValueError(f"{text!r} is neither a number of minibatches (200) nor of minutes (10m)")
