"""What is wrong with a schedule, where: problems are collected and raised together."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from potstill.thinning.files.text import printable

Path = tuple[str | int, ...]
LONGEST = 60


@dataclass(frozen=True)
class Problem:
    """One mistake: the file, its line, the path inside the document, what is wrong and what to do."""

    file: str | None
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        """Return `file:line: path: what is wrong`, on one line."""
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return printable(": ".join(part for part in (place, self.path, self.message) if part))


class ScheduleError(ValueError):
    """A schedule with mistakes; `str()` has one line for each.

    Attributes:
        problems: the mistakes, in the order of the file.
        warnings: what else was noted, a line each.
    """

    def __init__(self, problems: Iterable[Problem], warnings: Iterable[str] = ()) -> None:
        """Take the mistakes and the warnings."""
        self.warnings = list(warnings)
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ScheduleWarning(UserWarning):
    """Something in a schedule that does no harm but is hardly meant."""


@dataclass
class Report:
    """Collects the problems and warnings of one schedule.

    Attributes:
        twice: what stands twice with different values, so that no check can tell which counts; by the first two parts
            of its path (an instance), since each instance asks for its own.
    """

    file: str | None = None
    lines: Mapping[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    twice: dict[Path, list[Path]] = field(default_factory=dict)

    def error(self, path: Path, message: str, line: int | None = None) -> None:
        """Note a mistake at a path of the document."""
        self.problems.append(self._problem(path, message, line))

    def warn(self, path: Path, message: str, line: int | None = None) -> None:
        """Note something harmless."""
        self.warnings.append(str(self._problem(path, message, line)))

    def line(self, path: Path) -> int | None:
        """Return the line of a path, or of the nearest thing around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def raise_problems(self) -> None:
        """Raise what was noted.

        Raises:
            ScheduleError: there is at least one mistake.
        """
        if self.problems:
            raise ScheduleError(self.problems, self.warnings)

    def _problem(self, path: Path, message: str, line: int | None) -> Problem:
        return Problem(self.file, line or self.line(path), dotted(path), message)


def dotted(path: Path) -> str:
    """Return a path in words: `pruners.agp.weights[3]`."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def failed(who: str, error: Exception) -> str:
    """Return what to say of code that fails where it should not: what it raised, and where in it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{who} fails: {type(error).__name__}: {error}{place}"


def show(value: object) -> str:
    """Return a value as a message shows it: short, and said as YAML says it."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {_short(repr(value))}"
    if isinstance(value, Mapping):
        return f"a mapping ({_short(', '.join(map(str, value)))})" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    return _short(repr(value)) if isinstance(value, (int, float)) else f"a {type(value).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
