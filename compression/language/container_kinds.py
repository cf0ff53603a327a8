"""Kinds of lists, mappings and alternatives; lists and mappings of names of parameters know the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..declare.arguments import ParameterNames
from ..declare.cross_checks import Withheld
from ..declare.names import ParameterIndex, is_pattern
from .errors import Path
from .scalar_kinds import Faults, Kind, Null, Schema, Unsayable


@dataclass(frozen=True)
class Items(Kind):
    """A list of any length; `names`: of names and patterns of parameters, where a single text is a list of one."""

    item: Kind
    names: bool = False
    make: Callable[[list[Any]], Any] = list

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take a list."""
        if self.names and isinstance(value, str):
            self._look_up(value, path, faults)
            return self.make([value])
        if not isinstance(value, (list, tuple)):
            return self.refuse(value, path, faults)
        if self.names and not value:
            faults.add(path, "names no parameter: give at least one name or pattern")
        items = [self.item.read(item, (*path, i), faults) for i, item in enumerate(value)]
        for i, name in enumerate(items if self.names else ()):
            self._look_up(name, (*path, i), faults)
        return self.make(items)

    def _look_up(self, name: Any, path: Path, faults: Faults) -> None:
        if faults.index is not None and isinstance(name, str) and not faults.index.matches(name):
            faults.add(path, faults.index.complaint(name))

    def words(self) -> str:
        """Return what this kind takes."""
        return "a name or a list of names of parameters" if self.names else f"a list (each {self.item.words()})"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        many = {"type": "array", "items": self.item.schema()}
        return {"anyOf": [{"type": "string"}, many | {"minItems": 1}]} if self.names else many

    def right(self, value: Any, wrong: Collection[Any], index: ParameterIndex | None) -> Any:
        """Return the names of the parameters, of entries that are right.

        A list of anything else is right as a whole.
        """
        if not self.names:
            return super().right(value, wrong, index)
        names = [name for i, name in enumerate(value) if i not in wrong]
        if not names:
            raise Withheld
        return names if index is None else index.resolve(names)


@dataclass(frozen=True)
class Fixed(Kind):
    """A list with a kind for each place."""

    items: tuple[Kind, ...]

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take a list of the right length; it becomes a tuple."""
        if not isinstance(value, (list, tuple)) or len(value) != len(self.items):
            return self.refuse(value, path, faults)
        pairs = enumerate(zip(self.items, value, strict=True))
        return tuple(kind.read(item, (*path, i), faults) for i, (kind, item) in pairs)

    def words(self) -> str:
        """Return what this kind takes."""
        return f"a list of {len(self.items)}: {'; '.join(kind.words() for kind in self.items)}"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        places = [kind.schema() for kind in self.items]
        return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}


@dataclass(frozen=True)
class Entries(Kind):
    """A mapping from texts; `names`: from names and patterns of parameters."""

    value: Kind
    names: ParameterNames | None = None

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take a mapping."""
        if not isinstance(value, Mapping):
            return self.refuse(value, path, faults)
        if self.names and not value:
            faults.add(path, "names no parameter: give at least one name or pattern")
        entries = {key: self.value.read(entry, (*path, key), faults) for key, entry in value.items()}
        if self.names and faults.index is not None:
            self._check_names(entries, path, faults, faults.index)
        return entries

    def _check_names(self, entries: Mapping[str, Any], path: Path, faults: Faults, index: ParameterIndex) -> None:
        star = self.names is not None and self.names.star
        for key in entries:
            if not (star and key == "*") and not index.matches(key):
                faults.add((*path, key), index.complaint(key))
        for key, message in index.clashes(entries, star).items():
            faults.add((*path, key), message)

    def words(self) -> str:
        """Return what this kind takes."""
        return f"a mapping of {'names of parameters' if self.names else 'texts'} (each to {self.value.words()})"

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {"type": "object", "additionalProperties": self.value.schema()}

    def right(self, value: Any, wrong: Collection[Any], index: ParameterIndex | None) -> Any:
        """Return the values by the names of parameters, of entries that are right.

        A wrong entry keeps its parameters to itself: patterns do not get them. Nor is it known what patterns are for
        where a key fits nothing, since it may be meant for one of theirs.
        """
        if self.names is None:
            return super().right(value, wrong, index)
        if index is None:
            found = {key: entry for key, entry in value.items() if key not in wrong}
        else:
            star = self.names.star
            known = [key for key in value if (star and key == "*") or index.matches(key)]
            sure = len(known) == len(value)
            owners = {name: keys for name, keys in index.owners(known, star).items() if sure or not is_pattern(keys[0])}
            found = {name: value[keys[0]] for name, keys in owners.items() if not set(keys) & set(wrong)}
        if not found and value:
            raise Withheld
        return found


@dataclass(frozen=True)
class Either(Kind):
    """One of several kinds."""

    options: tuple[Kind, ...]

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """Take what the first fitting kind takes; where none fits, complain like the one that came closest."""
        tries = []
        for kind in self.options:
            trial = Faults(faults.index)
            taken = kind.read(value, path, trial)
            if not trial.found:
                return taken
            tries.append(trial.found)
        inner = [found for found in tries if all(where != path for where, _ in found)]
        sayable = [kind for kind in self.options if not isinstance(kind, (Null, Unsayable))]
        if inner:
            faults.found += inner[0]
        elif len(sayable) == 1:
            faults.found += tries[self.options.index(sayable[0])]
        else:
            self.refuse(value, path, faults)
        return None

    def words(self) -> str:
        """Return what this kind takes."""
        return " or ".join(kind.words() for kind in self.options if not isinstance(kind, Unsayable))

    def schema(self) -> Schema:
        """Return the JSON schema."""
        return {"anyOf": [kind.schema() for kind in self.options if not isinstance(kind, Unsayable)]}

    def right(self, value: Any, wrong: Collection[Any], index: ParameterIndex | None) -> Any:
        """Return what the kind that takes the value does."""
        for kind in () if wrong else self.options:
            trial = Faults(index)
            kind.read(value, (), trial)
            if not trial.found:
                return kind.right(value, (), index)
        return super().right(value, wrong, index)
