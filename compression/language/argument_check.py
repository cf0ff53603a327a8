"""Reads arguments against a signature: what is wrong with them, and what is right of them all the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from potstill.near_names import did_you_mean, near_names

from ..declare.cross_checks import Given, Withheld
from ..declare.names import ParameterIndex, meant
from .container_kinds import Either
from .errors import Path
from .scalar_kinds import Faults, Kind
from .signatures import Argument

Signature = Mapping[str, Argument]


@dataclass(frozen=True)
class Reading:
    """Arguments that were read.

    Attributes:
        args: as constructors want them, if there are no faults.
        faults: where something is wrong, and what.
        given: what is right of them, for the checks of what belongs together.
    """

    args: Mapping[str, Any]
    faults: list[tuple[Path, str]]
    given: Given


def read(
    taken: Signature,
    written: Mapping[str, Any],
    path: Path,
    index: ParameterIndex | None,
    doubtful: Collection[Path] = (),
) -> Reading:
    """Read the arguments that stand at a path against those that a class takes; at doubtful paths none is right."""
    faults = Faults(index)
    args = {}
    for key, value in written.items():
        if key in taken:
            args[key] = taken[key].kind.read(value, (*path, key), faults)
        else:
            _unknown(key, value, taken, (*path, key), faults)
    misspelled = {meant(key, taken) for key in written if key not in taken}
    for key, argument in taken.items():
        if argument.required and key not in written and key not in misspelled:
            faults.add(path, f"the argument `{key}` is missing ({argument.kind.words()})")
    given = _given(taken, written, args, [*(where for where, _ in faults.found), *doubtful], path, index)
    return Reading(args, faults.found, given)


def _unknown(key: str, value: Any, taken: Signature, path: Path, faults: Faults) -> None:
    """Complain of an argument that is not taken, and of its value where it surely is a misspelled one."""
    takes = f"; it takes {', '.join(taken)}" if taken else "; it takes none"
    faults.add(path, f"there is no such argument{did_you_mean(key, taken) or takes}")
    other = meant(key, taken)
    if other is not None:
        taken[other].kind.read(value, path, faults)


def _given(
    taken: Signature,
    written: Mapping[str, Any],
    args: Mapping[str, Any],
    places: Collection[Path],
    path: Path,
    index: ParameterIndex | None,
) -> Given:
    """Return what is right: less the places of faults, and less what a misspelled argument may have been meant for."""
    meant_for = {option for key in written if key not in taken for option in near_names(key, taken)} - set(written)
    wrong = {key for key, argument in taken.items() if key not in written and (argument.required or key in meant_for)}
    right: dict[str, Any] = {}
    left_out: dict[str, set[Any]] = {}
    for key, value in args.items():
        depth = len(path) + 1
        inner = [place[depth : depth + 1] for place in places if place[:depth] == (*path, key)]
        try:
            if () in inner:
                raise Withheld
            left_out[key] = {entry[0] for entry in inner}
            right[key] = taken[key].kind.right(value, left_out[key], index)
        except Withheld:
            wrong.add(key)
    defaults = {key: argument.default for key, argument in taken.items() if not argument.required}
    return Given(defaults | right, wrong, {key: entries for key, entries in left_out.items() if entries}, args)


def faults_in_all(
    signatures: Iterable[Signature], written: Mapping[str, Any], path: Path, index: ParameterIndex | None
) -> list[tuple[Path, str]]:
    """Return what is wrong with arguments whichever of the signatures is meant that take an argument of the name."""
    found = []
    signatures = list(signatures)
    for key, value in written.items():
        kinds = list(dict.fromkeys(taken[key].kind for taken in signatures if key in taken))
        if kinds:
            found += _faults_of_all(kinds, value, (*path, key), index)
    return found


def _faults_of_all(
    kinds: Collection[Kind], value: Any, path: Path, index: ParameterIndex | None
) -> list[tuple[Path, str]]:
    tries = []
    for kind in kinds:
        trial = Faults(index)
        kind.read(value, path, trial)
        tries.append(trial.found)
    common = [fault for fault in tries[0] if all(fault in found for found in tries)]
    if common or not all(found and {where for where, _ in found} == {path} for found in tries):
        return common
    either = Faults(index)
    Either(tuple(kinds)).read(value, path, either)
    return either.found
