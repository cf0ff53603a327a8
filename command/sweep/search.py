"""Which values `--within` tries: bisection between the two ends, over several values at once where processes are many.

What is looked for is the smallest network that is good enough. Size is taken to fall from one end to the other, and so
is accuracy, more or less: of all networks that were tried, the smallest good one is chosen, whatever lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
DIGITS = 4
"""Of a value between two others: 0.5625, and no folder called 0.56249999."""
FINEST = 1 / 512
"""Of the distance between the ends: nearer values are not told apart."""


@dataclass
class Search(Generic[T]):
    """A search over one number.

    Attributes:
        ends: the two values that it lies between.
        size: of a result.
        good: whether a result is good enough.
        most: how many values are tried at most.
        at_once: how many at a time.
    """

    ends: tuple[float, float]
    size: Callable[[T], float]
    good: Callable[[T], bool]
    most: int
    at_once: int = 1

    def next(self, tried: Mapping[float, T | None]) -> list[float]:
        """Return the values to try next, none where the search is over.

        Args:
            tried: result by value, None where there is none because its run failed.
        """
        left = self.most - len(tried)
        first = [end for end in self.ends if end not in tried]
        if first:
            return first[:left]
        known = {value: result for value, result in tried.items() if result is not None}
        if any(end not in known for end in self.ends):
            return []
        large, small = sorted(self.ends, key=lambda end: -self.size(known[end]))
        if self.good(known[small]) or not self.good(known[large]):
            return []
        order = sorted(tried, reverse=small < large)
        place = max(place for place, value in enumerate(order) if value in known and self.good(known[value]))
        return self._between(order[place], order[place + 1], min(left, self.at_once))

    def _between(self, one: float, other: float, count: int) -> list[float]:
        """Return so many values between two, evenly; whole numbers where the ends are, and no nearer than `FINEST`."""
        spread = [one + (other - one) * number / (count + 1) for number in range(1, count + 1)]
        if all(isinstance(end, int) for end in self.ends) and abs(self.ends[1] - self.ends[0]) > 1:
            found: Sequence[float] = [round(value) for value in spread]
        elif abs(other - one) <= FINEST * abs(self.ends[1] - self.ends[0]):
            return []
        else:
            found = [float(f"{value:.{DIGITS}g}") for value in spread]
        return [value for value in dict.fromkeys(found) if value not in (one, other)]

    def best(self, tried: Mapping[float, T | None]) -> float | None:
        """Return the value of the smallest good result, or None."""
        found = {value: result for value, result in tried.items() if result is not None and self.good(result)}
        return min(found, key=lambda value: self.size(found[value]), default=None)
