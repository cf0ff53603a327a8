"""Charts as data: where lines, points and ticks lie in a drawing of a fixed size. Templates make SVG of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 26.0
DOTS = 40
"""Lines of more points than these have no dots."""
LARGEST = 1e100
"""Values are drawn up to this one: differences and sums of larger ones overflow."""

Values = Sequence[float | None]


@dataclass(frozen=True)
class Dot:
    """A point, and what is said when one points at it."""

    x: float
    y: float
    text: str
    label: str = ""


@dataclass(frozen=True)
class Line:
    """A line by its SVG path; `number` counts the lines of a chart."""

    name: str
    path: str
    number: int
    dots: list[Dot] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """Lines and points over two scales; ticks are (place, text)."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    points: list[Dot] = field(default_factory=list)
    dense: list[Dot] = field(default_factory=list)
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    bottom: float = HEIGHT - BOTTOM
    right: float = WIDTH - RIGHT
    top: float = TOP


@dataclass(frozen=True)
class Scale:
    """Takes values to places in the drawing."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], first: float, last: float, log: bool = False) -> Scale:
        """Return the scale over some values, with a little room; of one value alone, around it."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        if log:
            return cls(low / 1.2, high * 1.2, first, last, log)
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room, first, last)

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        turn: Callable[[float], float] = math.log10 if self.log else float
        low, high = turn(self.low), turn(self.high)
        return round(self.first + (turn(value) - low) / (high - low) * (self.last - self.first), 1)

    def ticks(self, whole: bool = False) -> list[tuple[float, str]]:
        """Return places and texts of round numbers."""
        return [(self(value), _text(value)) for value in self._round(whole)]

    def _round(self, whole: bool) -> list[float]:
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            found = [10.0**power for power in powers][:: max(1, len(powers) // 4)]
            return found or [math.sqrt(self.low * self.high)]
        step = _step((self.high - self.low) / 4)
        step = max(step, 1.0) if whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(least: float) -> float:
    """Return the next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * 0.999)


def _text(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def line_chart(title: str, series: Mapping[str, Values], log: bool = False) -> Chart:
    """Return a chart of values by epoch; what is not known, not finite or above `LARGEST` leaves a gap.

    Args:
        title: of the chart.
        series: values of the epochs 0, 1, ... by name.
        log: a logarithmic scale, if all values are above 0.
    """
    known = [value for values in series.values() for value in values if value is not None and _drawable(value)]
    log = log and min(known, default=0.0) > 0 and max(known) > 10 * min(known)
    count = max(map(len, series.values()), default=0)
    x = Scale.over([0, max(count - 1, 1)], LEFT, WIDTH - RIGHT)
    y = Scale.over(known, HEIGHT - BOTTOM, TOP, log)
    lines = [_line(name, values, number, (x, y)) for number, (name, values) in enumerate(series.items())]
    return Chart(title, lines, [tick for tick in x.ticks(whole=True) if tick[0] >= LEFT], y.ticks())


def _drawable(value: float) -> bool:
    return abs(value) <= LARGEST  # NaN is not


def _line(name: str, values: Values, number: int, scales: tuple[Scale, Scale]) -> Line:
    x, y = scales
    path, pen, dots = [], "M", []
    for epoch, value in enumerate(values):
        if value is None or not _drawable(value):
            pen = "M"
            continue
        path.append(f"{pen}{x(epoch)} {y(value)}")
        dots.append(Dot(x(epoch), y(value), f"{name}, epoch {epoch}: {value:.5g}"))
        pen = "L"
    return Line(name, " ".join(path), number, dots if len(dots) <= DOTS else [])


def scatter(
    title: str,
    points: Sequence[tuple[float, float, str]],
    dense: Sequence[tuple[float, float, str]],
    front: Sequence[int],
) -> Chart:
    """Return a chart of accuracy over a cost.

    Args:
        title: what is shown over what.
        points: (cost, accuracy, name) of each run.
        dense: the same of the dense networks.
        front: which points a line goes through, in its order.
    """
    both = [*points, *dense]
    x = Scale.over([cost for cost, _, _ in both], LEFT, WIDTH - RIGHT)
    y = Scale.over([accuracy for _, accuracy, _ in both], HEIGHT - BOTTOM, TOP)

    def dot(cost: float, accuracy: float, name: str) -> Dot:
        text = f"{name}: {accuracy:.2f} % at {cost:,.6g}"
        return Dot(x(cost), y(accuracy), text, name.rpartition("=")[2] if len(points) <= DOTS // 3 else "")

    drawn = [dot(*one) for one in points]
    path = " ".join(f"{'L' if number else 'M'}{drawn[place].x} {drawn[place].y}" for number, place in enumerate(front))
    return Chart(title, [Line("front", path, 0)], x.ticks(), y.ticks(), drawn, [dot(*one) for one in dense])
