"""Kinds of single values: each reads a value from a schedule, says in words what it takes, and has a JSON schema."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from potstill.near_names import did_you_mean

from ..declare.arguments import Range
from ..declare.cross_checks import Withheld
from ..declare.names import ParameterIndex
from .errors import Path, show

Schema = dict[str, Any]
ANYTHING = Range()
YES_NO = {"yes": "true", "on": "true", "no": "false", "off": "false"}


@dataclass
class Faults:
    """What a reading found wrong, and the parameters that names are looked up in (None: names are not checked)."""

    index: ParameterIndex | None = None
    found: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, path: Path, message: str) -> None:
        """Note a fault."""
        self.found.append((path, message))


class Kind:
    """A kind of value. The base class takes anything."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Return the value as constructors want it; what is wrong with it goes into `faults`."""
        return value

    def words(self) -> str:
        """Return what this kind takes."""
        return "any value"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {}

    def right(self, value: Any, wrong: Collection[Any], index: ParameterIndex | None) -> Any:
        """Return what is right of a value that was read, with names and patterns replaced by the names of parameters.

        Args:
            value: what `read` gave.
            wrong: the entries in which it found faults.
            index: the parameters (None: names stay as they are).

        Raises:
            Withheld: nothing is, or one cannot tell.
        """
        if wrong:
            raise Withheld
        return value

    def refuse(self, value: Any, path: Path, faults: Faults, hint: str = "") -> None:
        """Note that the value is not of this kind."""
        faults.add(path, f"must be {self.words()}, not {show(value)}{hint}")


@dataclass(frozen=True)
class Unsayable(Kind):
    """What no schedule can give: functions, objects."""

    what: str

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Refuse every value."""
        faults.add(path, f"takes a Python object ({self.what}), which a schedule cannot give")

    def words(self) -> str:
        """Return what this kind takes."""
        return f"a Python object ({self.what})"

    def schema(self) -> Schema:
        """Return the JSON schema: nothing fits."""
        return {"not": {}}


@dataclass(frozen=True)
class Null(Kind):
    """Nothing."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take null."""
        if value is not None:
            self.refuse(value, path, faults)

    def words(self) -> str:
        """Return what this kind takes."""
        return "null"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {"type": "null"}


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take a truth value."""
        if not isinstance(value, bool):
            word = YES_NO.get(str(value).lower())
            self.refuse(value, path, faults, f" (write {word})" if word else "")
        return value

    def words(self) -> str:
        """Return what this kind takes."""
        return "true or false"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Kind):
    """A text."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take a text."""
        if not isinstance(value, str):
            self.refuse(value, path, faults, "" if isinstance(value, (Mapping, list)) else " (put it in quotes)")
        return value

    def words(self) -> str:
        """Return what this kind takes."""
        return "a text"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {"type": "string"}


@dataclass(frozen=True)
class Number(Kind):
    """A finite number, whole or not, within bounds."""

    whole: bool
    range: Range = ANYTHING

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take a number; where it need not be whole it becomes a float."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self.refuse(value, path, faults, " (write it without quotes)" if _is_number(value) else "")
        if self.whole and isinstance(value, float):
            hint = f" (write {int(value)})" if math.isfinite(value) and value == int(value) else ""
            return self.refuse(value, path, faults, hint)
        try:
            good = math.isfinite(value) and value in self.range
            return (value if self.whole else float(value)) if good else self.refuse(value, path, faults)
        except OverflowError:
            return faults.add(path, f"is too large a number: {show(value)}")

    def words(self) -> str:
        """Return what this kind takes."""
        bounds = str(self.range)
        return f"{'a whole' if self.whole else 'a'} number{' of ' if bounds.startswith('at') else ' '}{bounds}".strip()

    def schema(self) -> Schema:
        """Return the JSON schema."""
        low = {"exclusiveMinimum" if self.range.above else "minimum": self.range.low}
        bounds = low | {"maximum": self.range.high}
        given = {key: bound for key, bound in bounds.items() if bound is not None}
        return {"type": "integer" if self.whole else "number", **given}


@dataclass(frozen=True)
class Choice(Kind):
    """One of several texts or numbers."""

    options: tuple[Any, ...]

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take one of the options."""
        if not any(type(option) is type(value) and option == value for option in self.options):
            hint = did_you_mean(value, map(str, self.options)) if isinstance(value, str) else ""
            self.refuse(value, path, faults, hint)
        return value

    def words(self) -> str:
        """Return what this kind takes."""
        names = ["null" if option is None else str(option) for option in self.options]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {"enum": list(self.options)}


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
