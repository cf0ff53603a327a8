"""Checks when an entry of `policies` acts: a range or a list, of epochs or of minibatches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ..declare.arguments import Count, Range
from ..declare.names import meant
from ..steps import Window, empty, rising, unfit
from .errors import Path, Report
from .kind_of import kind_of
from .scalar_kinds import Faults, Kind

Unit = Literal["epoch", "minibatch"]
TIME = kind_of(Annotated[int, Range(0)])
TIMES = kind_of(list[Annotated[int, Range(0)]])
RANGES: dict[Unit, tuple[str, str, str]] = {
    "epoch": ("starting_epoch", "ending_epoch", "frequency"),
    "minibatch": ("starting_minibatch", "ending_minibatch", "minibatch_frequency"),
}
LISTS: dict[Unit, str] = {"epoch": "epochs", "minibatch": "minibatches"}
WHEN: dict[str, Kind] = {
    **{key: TIME for keys in RANGES.values() for key in keys[:2]},
    **{keys[2]: kind_of(Count) for keys in RANGES.values()},
    **dict.fromkeys(LISTS.values(), TIMES),
}
FORMS: list[tuple[Unit, list[str]]] = [
    *((unit, [key]) for unit, key in LISTS.items()),
    *((unit, list(keys)) for unit, keys in RANGES.items()),
]


LATEST = 10**12
"""A cluster of a thousand minibatches a second gets there in thirty years; what counts times can count so far."""


def window(entry: Mapping[str, Any], path: Path, report: Report) -> Window | None:
    """Return when an entry acts, or None with the reason reported; check each time, whatever is wrong with others."""
    written = [key for key in entry if key in WHEN]
    right = _right(entry, written, path, report)
    forms = [(unit, keys) for unit, keys in FORMS if set(written) & set(keys)]
    if len(forms) != 1:
        problem = f"mixes {' and '.join(sorted(written))}" if forms else "does not say when it acts"
        ways = "starting_epoch and ending_epoch, epochs, starting_minibatch and ending_minibatch, or minibatches"
        report.error(path, f"{problem}: give either {ways}")
        return None
    unit, keys = forms[0]
    misspelled = {meant(key, WHEN) for key in entry if key not in WHEN}
    missing = [f"`{key}`" for key in keys[:2] if key not in entry and key not in misspelled]
    if missing:
        report.error(path, f"{' and '.join(missing)} is missing")
    if len(keys) == 1:
        return _listed(unit, entry[keys[0]], keys[0] in right, (*path, keys[0]), report)
    found = _ranged(unit, keys, right, path, report)
    return found if set(written) <= set(right) else None


def _right(entry: Mapping[str, Any], written: list[str], path: Path, report: Report) -> dict[str, Any]:
    """Return the times that are well-typed; the others are reported."""
    right = {}
    for key in written:
        faults = Faults()
        value = WHEN[key].read(entry[key], (*path, key), faults)
        if not faults.found and max([0, *value] if isinstance(value, list) else [value]) > LATEST:
            faults.add((*path, key), f"is later than any training lasts: at most {LATEST:,}")
        for where, message in faults.found:
            report.error(where, message)
        if not faults.found:
            right[key] = value
    return right


def _listed(unit: Unit, times: Any, right: bool, path: Path, report: Report) -> Window | None:
    if not isinstance(times, (list, tuple)):
        return None
    sound = [time for time in times if type(time) is int and time >= 0]
    if not times or not rising(sound):
        report.error(path, f"a list of times must be rising and not empty, not {list(times)}")
        return None
    return Window.at(sound, unit) if right else None


def _ranged(unit: Unit, keys: list[str], right: Mapping[str, Any], path: Path, report: Report) -> Window | None:
    """Return the window of a range; its ends and its frequency are checked even if something else is wrong."""
    start, end, frequency = (right.get(key) for key in keys)
    if start is None or end is None:
        return None
    every = 1 if frequency is None else frequency
    problems = [(keys[0], empty(start, end)), (keys[2], unfit(start, end, every))]
    for key, problem in problems:
        if problem:
            report.error((*path, key), problem)
    return None if any(problem for _, problem in problems) else Window.between(start, end, every, unit)
