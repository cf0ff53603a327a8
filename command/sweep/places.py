"""Where a value stands in a schedule: `gates.target_sparsity`, `agp.levels.conv1.weight`, `policies[1].ending_epoch`.

Keys of a schedule may have dots in them (names of parameters), so that a path is followed key by key, the longest that
fits first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from potstill.compression.declare.registry import SECTIONS
from potstill.compression.language.errors import Path, dotted, show
from potstill.near_names import did_you_mean

from ..errors import UsageError

INDEX = re.compile(r"\[([0-9]{1,6})\]")
MOST = 12


def find_place(data: Mapping[str, Any], key: str) -> Path:
    """Return the path of a value in a schedule's data.

    Args:
        data: of the schedule.
        key: begins with an instance, a section, or `policies[n]`. Its last name may be missing there: an argument that
            the schedule leaves as it is by default.

    Raises:
        UsageError: there is no such place; it says what there is.
    """
    starts = _starts(data)
    start = max((name for name in starts if _leads(key, name)), key=len, default=None)
    if start is None and key in starts:
        raise UsageError(f"--sweep {key}: names no value: write which of it, {key}.{_first(data, starts[key][0])}")
    if start is None:
        instances = [name for name, paths in starts.items() if len(paths[0]) == 2]
        raise _nothing(key, key.partition(".")[0], instances, "the schedule", "policies[0], policies[1], ...")
    paths = starts[start]
    if len(paths) > 1:
        sections = [str(path[0]) for path in paths]
        raise UsageError(f"--sweep {key}: {start} stands in {' and '.join(sections)}: write {sections[0]}.{key}")
    value: Any = data
    for part in paths[0]:
        value = value[part]
    return _walk(value, paths[0], key[len(start) :], key)


def _starts(data: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return what a key may begin with -> where that is."""
    found: dict[str, list[Path]] = {}
    for section in SECTIONS:
        for name in data.get(section) or {}:
            found.setdefault(name, []).append((section, name))
    for name in data:
        found.setdefault(name, [(name,)])
    return found


def _first(data: Mapping[str, Any], path: Path) -> str:
    """Return what an example of a value may be called."""
    inside: Any = data
    for part in path:
        inside = inside[part]
    names = [name for name in inside if name != "class"] if isinstance(inside, Mapping) else []
    return names[0] if names else "NAME"


def _leads(key: str, name: str) -> bool:
    return key.startswith(name) and key[len(name) : len(name) + 1] in (".", "[")


def _walk(value: Any, path: Path, rest: str, key: str) -> Path:
    """Return the path that the rest of a key leads to."""
    if not rest:
        return path
    if isinstance(value, list):
        index = INDEX.match(rest)
        if index is None or int(index[1]) >= len(value):
            raise UsageError(f"--sweep {key}: {dotted(path)} is a list of {len(value)}: {dotted(path)}[0] is its first")
        return _walk(value[int(index[1])], (*path, int(index[1])), rest[index.end() :], key)
    if not isinstance(value, Mapping) or rest[0] != ".":
        raise UsageError(f"--sweep {key}: {dotted(path)} is {show(value)}, and has nothing inside")
    names = [name for name in value if _leads(rest[1:], name) or rest[1:] == name]
    if names:
        name = max(names, key=len)
        return _walk(value[name], (*path, name), rest[1 + len(name) :], key)
    if rest[1:].isidentifier() and _takes_more(path):
        return (*path, rest[1:])
    raise _nothing(key, rest[1:], value, dotted(path))


def _takes_more(path: Path) -> bool:
    """Return whether a mapping has arguments that a schedule may leave out: its check knows them."""
    return (len(path) == 2 and path[0] in (*SECTIONS, "policies")) or path[-1] == "args"


def _nothing(key: str, name: str, known: Iterable[str], where: str, also: str = "") -> UsageError:
    names = list(known)
    hint = did_you_mean(name, names)
    some = ", ".join([*names[:MOST], *(["..."] if len(names) > MOST else []), *([also] if also else [])])
    return UsageError(f"--sweep {key}: there is no {name} in {where}{hint or f': there are {some}'}")


def with_value(data: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Return a copy of a schedule's data with another value at a path."""
    changed = copy.deepcopy(dict(data))
    inside: Any = changed
    for part in path[:-1]:
        inside = inside[part]
    inside[path[-1]] = copy.deepcopy(value)
    return changed
