"""How long an epoch took, and how long the others will take."""

from __future__ import annotations

import time


class Clock:
    """Measures epochs; of one that was begun in another call the time is not known."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._began: float | None = None
        self._seconds: list[float] = []

    def start(self) -> None:
        """Begin an epoch."""
        self._began = time.monotonic()

    def told(self, epochs_left: int) -> str:
        """End an epoch; return its time and the time left, as text to append, or nothing."""
        if self._began is None:
            return ""
        self._seconds.append(time.monotonic() - self._began)
        self._began = None
        left = epochs_left * sum(self._seconds) / len(self._seconds)
        return f" | {span(self._seconds[-1])}" + (f", {span(left)} left" if epochs_left > 0 else "")


def span(seconds: float) -> str:
    """Return a time as a person would say it: `7 s`, `4 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
