"""Checks a whole schedule, from text or data, and makes the plan of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from torch import nn

from potstill.near_names import did_you_mean
from potstill.thinning.files.text import printable

from ..declare.names import meant
from ..declare.registry import SECTIONS
from .errors import Path, Report, show
from .plan import Schedule
from .policy_check import PolicyChecker
from .section_check import Checker
from .yaml_nodes import Document, Duplicate
from .yaml_reader import MAX_BYTES, MAX_DEPTH, decode, read

NUMBERS = re.compile(r"^\d+(\.\d+)*$")
TOP = (*SECTIONS, "policies", "version")


def check_file(path: FilePath, model: nn.Module | None, name: str | None = None) -> Schedule:
    """Return the schedule in a file; see `schedule.load_schedule`."""
    report = Report(name or str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        report.error((), f"cannot be read: {error.strerror or error}")
        report.raise_problems()
    text = decode(raw, report) or ""
    document = Document() if report.problems else read(text, report)
    report.raise_problems()
    report.lines = document.lines
    _judge_duplicates(document, report)
    return _check(document, model, report, text, path)


def check_dict(data: Mapping[str, Any], model: nn.Module | None, name: str | None = None) -> Schedule:
    """Return the schedule in a mapping, which is not changed; see `schedule.load_schedule`."""
    report = Report(name)
    copied = _plain(data, (), report)
    report.raise_problems()
    return _check(Document(copied), model, report, "", None)


def _check(document: Document, model: nn.Module | None, report: Report, text: str, path: FilePath | None) -> Schedule:
    data = document.data
    if not isinstance(data, Mapping):
        report.error((), f"must be a mapping with `policies` and the sections that they need, not {show(data)}")
        report.raise_problems()
    data = _check_top(data, report)
    checker = Checker(report, model)
    instances = checker.sections(data)
    policies = PolicyChecker(data, checker)
    plans = policies.policies()
    for twice in document.duplicates:
        _check_hidden(twice, checker, policies)
    report.raise_problems()
    for key in instances:
        if key not in policies.used:
            report.warn(key, "is never used by a policy")
    return Schedule(instances, plans, text, path, report.warnings, report.file)


def _check_top(data: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
    """Return the data, with misspelled sections under the names that they surely mean."""
    sections = dict(data)
    for key in data:
        if key not in TOP:
            hint = did_you_mean(key, TOP) or f"; there are {', '.join(TOP)}"
            report.error((key,), f"there is no such section{hint}")
            right = meant(key, TOP)
            if right is not None and right not in sections:
                sections[right] = data[key]
                moved = {path: line for path, line in report.lines.items() if path[:1] == (key,)}
                report.lines = {**report.lines, **{(right, *path[1:]): line for path, line in moved.items()}}
    version = data.get("version")
    number = NUMBERS.match(version) if isinstance(version, str) else isinstance(version, (int, float, type(None)))
    if not number or isinstance(version, bool):
        report.error(("version",), f"must be a number, not {show(version)}")
    return sections


def _judge_duplicates(document: Document, report: Report) -> None:
    """Report keys that stand twice, but for a parameter with the same value, which is harmless."""
    for twice in document.duplicates:
        lines = f"stands twice, in lines {twice.first} and {twice.second}"
        if twice.equal and len(twice.path) > 3 and twice.path[0] in SECTIONS:
            report.warn(twice.path, f"{lines}, with the same value", twice.second)
        else:
            report.error(twice.path, f"{lines}: remove one", twice.second)
            report.twice.setdefault(twice.path[:2], []).append(twice.path)


def _check_hidden(twice: Duplicate, checker: Checker, policies: PolicyChecker) -> None:
    """Check what the second of two equal keys hides: definitions, sections, the list of policies."""
    if twice.equal or twice.hidden is None:
        return
    path, data = twice.hidden
    section = str(path[0]).partition(" (line ")[0]  # inside of what is hidden more may be
    if section in SECTIONS and len(path) == 2:
        checker.instance(section, path, data)
    elif section in SECTIONS and isinstance(data, Mapping):
        for name, definition in data.items():
            checker.instance(section, (*path, name), definition)
    elif section == "policies" and isinstance(data, list):
        for i, entry in enumerate(data):
            policies.policy(entry, (*path, i))


def _plain(value: Any, path: Path, report: Report) -> Any:
    """Return a copy of a value from Python in lists and mappings with texts as keys."""
    if len(path) > MAX_DEPTH:
        report.error(path[:3], f"is nested more than {MAX_DEPTH} levels deep")
        return None
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(entry, (*path, str(key)), report) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, (*path, i), report) for i, entry in enumerate(value)]
    return value
