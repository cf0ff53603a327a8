"""Types of arguments that a schedule can give, as annotations.

A class says in its constructor what each argument is, and the loader checks the value against it, with the line::

    def __init__(self, levels: Levels, group_type: StructureGroup = "Filters") -> None: ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Range:
    """Bounds of a number: `low <= x <= high`, with `above` set `low < x`."""

    low: float | None = None
    high: float | None = None
    above: bool = False

    def __contains__(self, value: float) -> bool:
        """Return whether the number lies within the bounds (NaN never does)."""
        over = self.low is None or (value > self.low if self.above else value >= self.low)
        return over and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """Return the bounds in words."""
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high is not None:
            parts.append(f"at most {self.high:g}")
        return " and ".join(parts)


@dataclass(frozen=True)
class ParameterNames:
    """Marks a list of names or patterns of parameters, or a mapping whose keys are such.

    With `star`, the key `*` stands for all parameters that no other key names.
    """

    star: bool = False


Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]

Names = Annotated[Sequence[str], ParameterNames()]
Levels = Annotated[Mapping[str, Fraction], ParameterNames(star=True)]
Sensitivities = Annotated[Mapping[str, NonNegative], ParameterNames(star=True)]
Strengths = Annotated[Mapping[str, NonNegative], ParameterNames()]

StructureGroup = Literal["2D", "3D", "Filters", "Channels", "Rows", "Cols", "4D", "Blocks", "Coupled"]
