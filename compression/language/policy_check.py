"""Checks the entries of `policies`: one kind with the instance that it names, its `args`, and when it acts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from potstill.near_names import did_you_mean

from ..declare.cross_checks import NOTHING, Complaint, Given, Unknown, Use, apart
from ..declare.names import HINTS, meant, misspelled
from ..policies import PrunerArgs, RegularizerArgs
from ..policies.learning_rate import misuses_of_rates
from ..steps import Window
from .errors import Path, show
from .plan import PolicyPlan
from .section_check import Checker
from .signatures import KINDS, OFFERED, arguments
from .times import WHEN, window

ARGS: dict[str, Any] = {"pruner": PrunerArgs, "regularizer": RegularizerArgs}
MISUSES: dict[str, Callable[[Use], Iterable[Complaint]]] = {
    "pruner": PrunerArgs.misuses,
    "regularizer": RegularizerArgs.misuses,
    "lr_scheduler": misuses_of_rates,
}
"""What to check of a policy with its instance, by kind."""


@dataclass(frozen=True)
class Acting:
    """What acts in an entry.

    Attributes:
        kind: its kind.
        path: where it stands.
        instance: the instance's name.
        args: the policy's arguments, if they are right (None: there are none).
        given: what is right of them.
    """

    kind: str
    path: Path
    instance: str = ""
    args: Any = None
    given: Given = field(default_factory=Unknown)


class PolicyChecker:
    """Checks the entries against what the sections define."""

    def __init__(self, data: Mapping[str, Any], checker: Checker) -> None:
        """Take the whole schedule, and what checks its instances."""
        self.data, self.checker, self.report = data, checker, checker.report
        self.used: set[tuple[str, str]] = set()
        self._unknown = 0

    def policies(self) -> list[PolicyPlan]:
        """Return the entries that are right, in the order of the file."""
        if "policies" not in self.data:
            self.report.error((), "`policies` is missing: nothing would ever act")
            return []
        entries = self.data["policies"]
        if not isinstance(entries, list) or not entries:
            self.report.error(("policies",), f"must be a list of policies, not {show(entries)}")
            return []
        plans = [self.policy(entry, ("policies", i)) for i, entry in enumerate(entries)]
        return [plan for plan in plans if plan]

    def policy(self, entry: Any, path: Path) -> PolicyPlan | None:
        """Return the plan of one entry, or None if it is wrong."""
        before = len(self.report.problems)
        if not isinstance(entry, Mapping):
            self.report.error(path, f"must be a mapping of a kind ({', '.join(OFFERED)}) and times, not {show(entry)}")
            return None
        kinds = [key for key in entry if key in KINDS]
        self.unknown_keys(entry, path)
        if len(kinds) != 1:
            what = f"has {len(kinds)} kinds ({', '.join(kinds)})" if kinds else "has no kind"
            self.report.error(path, f"{what}: give exactly one of {', '.join(OFFERED)}")
        acting = [self.acting(kind, entry[key], (*path, key), kinds) for key, kind in _kinds(entry).items()]
        when = window(_with_nested_times(entry), path, self.report)
        if len(acting) == 1:
            self.misuses(acting[0], when, entry, path)
        if when is None or len(self.report.problems) > before or kinds == ["quantizer"]:
            return None
        return PolicyPlan(kinds[0], acting[0].instance, when, acting[0].args, self.report.line(path))

    def unknown_keys(self, entry: Mapping[str, Any], path: Path) -> None:
        """Report the keys that no entry has."""
        for key in entry:
            if key in ("args", "instance_name"):
                self.report.error((*path, key), f"belongs inside the kind, below `{_kind(entry)}:`")
            elif key not in KINDS and key not in WHEN:
                self.report.error((*path, key), f"there is no such key{did_you_mean(key, [*OFFERED, *WHEN])}")

    def acting(self, kind: str, content: Any, path: Path, kinds: Sequence[str]) -> Acting:
        """Return what acts, and with what arguments; `kinds` are those in the entry."""
        if not isinstance(content, Mapping):
            self.report.error(path, f"must be a mapping with `instance_name`, not {show(content)}")
            return Acting(kind, path)
        for key in content:
            if key not in ("instance_name", "args"):
                self.report.error((*path, key), self.misplaced(kind, key))
        name = content.get("instance_name")
        if "instance_name" not in content:
            self.report.error(path, f"`instance_name` is missing{misspelled('instance_name', content)}")
        elif not isinstance(name, str):
            self.report.error((*path, "instance_name"), f"must be the name of an instance, not {show(name)}")
        else:
            self.find(kind, name, (*path, "instance_name"), kinds)
        key = next((key for key in content if meant(key, ["args"])), "args")
        args, given = self.args(kind, content.get(key), (*path, key))
        return Acting(kind, path, str(name), args, given)

    def misplaced(self, kind: str, key: str) -> str:
        """Return where a key belongs that does not belong into a kind's mapping."""
        if key in WHEN:
            return f"belongs beside `{kind}:`, one level further out"
        if kind in ARGS and key in arguments(ARGS[kind]):
            return "belongs into `args`, one level further in"
        return f"there is no such key{did_you_mean(key, ['instance_name', 'args', *WHEN])}"

    def find(self, kind: str, name: str, path: Path, kinds: Sequence[str]) -> None:
        """Look the instance up; note that it is used."""
        section = KINDS[kind]
        known = self.data.get(section) or {}
        if not isinstance(known, Mapping) or (section,) in self.report.twice:  # told already
            return
        if name in known:
            self.used.add((section, name))
            return
        for other, other_section in KINDS.items():
            elsewhere = self.data.get(other_section)
            if isinstance(elsewhere, Mapping) and name in elsewhere and other not in kinds:
                self.report.error(path, f"{name!r} is defined in {other_section}: make this a `{other}:`")
                return
        self._unknown += 1  # a thousand names compared with a thousand others take minutes
        hint = did_you_mean(name, known) if self._unknown <= HINTS else ""
        self.report.error(path, f"{section} defines no {name!r}{hint}")

    def args(self, kind: str, written: Any, path: Path) -> tuple[Any, Given]:
        """Return the policy's arguments as the kind's dataclass, if there are any, and what is right of them."""
        if written is not None and not isinstance(written, Mapping):
            self.report.error(path, f"must be a mapping, not {show(written)}")
            return None, Unknown()
        if kind not in ARGS:
            if written and kind != "quantizer":
                self.report.error(path, f"a policy of kind `{kind}` takes no args")
            return None, NOTHING
        before = len(self.report.problems)
        values, given = self.checker.read(arguments(ARGS[kind]), written or {}, path)
        for where, message in self.checker.ask("args", lambda: ARGS[kind].problems(given), given.complete):
            self.report.error((*path, where) if where else path, message)
        wrong = len(self.report.problems) > before
        return ARGS[kind](**values) if written and not wrong else None, given

    def misuses(self, acting: Acting, when: Window | None, entry: Mapping[str, Any], path: Path) -> None:
        """Report where the instance, the policy's arguments and its times do not go together."""
        cls, given = self.checker.known.get((KINDS[acting.kind], acting.instance), (None, Unknown()))
        use = Use(cls, given, acting.given, when, self.checker.shapes)
        times = [key for key in entry if key in WHEN] or [""]
        complete = given.complete and acting.given.complete
        who = f"{cls.__name__ if cls else acting.kind}.misuses"
        for where, message in self.checker.ask(who, lambda: _misuses(acting.kind, use), complete):
            outside = {"times": (*path, times[0]), "frequency": (*path, times[-1])}
            self.report.error(outside.get(where, (*acting.path, *filter(None, where.split(".", 1)))), message)


def _misuses(kind: str, use: Use) -> Iterable[Complaint]:
    def of_class() -> Iterable[Complaint]:
        if hasattr(use.cls, "misuses"):
            yield from use.cls.misuses(use)

    return apart(MISUSES[kind](use) if kind in MISUSES else (), of_class())


def _kinds(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the kinds in an entry by the keys that name them, or where there is none that surely mean one."""
    found = {key: key for key in entry if key in KINDS}
    return found or {key: kind for key in entry if key not in WHEN and (kind := meant(key, OFFERED))}


def _with_nested_times(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry with times that stand one level too deep, so that they are not reported as missing too."""
    inner = [content for key, content in entry.items() if key in KINDS and isinstance(content, Mapping)]
    return {key: value for content in inner for key, value in content.items() if key in WHEN} | dict(entry)


def _kind(entry: Mapping[str, Any]) -> str:
    return next((key for key in entry if key in KINDS), "pruner")
