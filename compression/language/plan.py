"""A checked schedule as plain data, which can be printed, compared and tabulated before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from potstill.thinning.files.html import html_lines, html_table
from potstill.thinning.files.text import printable

from ..steps import Window, when
from .signatures import KINDS, classes

SIZES = {"target_macs": "MACs {:g}", "target_latency": "latency {:g}", "target_milliseconds": "{:g} ms"}
COLUMNS = ("kind", "instance", "class", "when", "sparsity", "args")


@dataclass(frozen=True)
class InstancePlan:
    """A named instance: its class and its checked arguments, names of parameters still as written."""

    section: str
    name: str
    cls: type
    args: Mapping[str, Any]
    line: int | None = None

    def __str__(self) -> str:
        """Return `pruners.agp: AutomatedGradualPruner(initial_sparsity=0.1, …)`."""
        args = ", ".join(f"{name}={_brief(value)}" for name, value in self.args.items())
        return f"{self.section}.{self.name}: {self.cls.__name__}({args})"


@dataclass(frozen=True)
class PolicyPlan:
    """An entry of `policies`: the instance that acts, when, and with what arguments (None where there are none)."""

    kind: str
    instance: str
    window: Window
    args: Any = None
    line: int | None = None

    def __str__(self) -> str:
        """Return `pruner agp: epochs 0 to 30, every 2`."""
        window = self.window
        if isinstance(window.times, range):
            every = f", every {window.frequency}" if window.frequency != 1 else ""
            times = f"{window.start} to {window.end} (exclusive){every}"
        else:
            times = ", ".join(map(str, window.times))
        return f"{self.kind} {self.instance}: {window.unit} {times}{f', {self.args}' if self.args else ''}"


@dataclass(frozen=True)
class Schedule:
    """A schedule without mistakes.

    Attributes:
        instances: (section, name) -> instance.
        policies: when they act, in the order of the file.
        text: the file's text ("" for a dict).
        path: the file, or None.
        warnings: what is harmless but hardly meant, a line each.
        name: what messages call it.
    """

    instances: Mapping[tuple[str, str], InstancePlan]
    policies: Sequence[PolicyPlan]
    text: str = ""
    path: Path | None = None
    warnings: list[str] = field(default_factory=list)
    name: str | None = None

    def __repr__(self) -> str:
        """Return a line for each policy."""
        lines = [", ".join(filter(None, map(str, row.values()))) for row in plan_rows(self)]
        return "\n".join([self._headline(), *(f"  {printable(line)}" for line in lines)])

    def _repr_html_(self) -> str:
        """Return a row for each policy."""
        table = html_table(COLUMNS, [tuple(row.values()) for row in plan_rows(self)])
        return html_lines(self._headline()) + table + html_lines(*self.warnings)

    def _headline(self) -> str:
        source = "" if self.path is None else f" of {printable(self.path.name)}"
        return f"Schedule{source}: {len(self.instances)} instances, {len(self.policies)} policies"

    def __str__(self) -> str:
        """Return a line for each instance and each policy."""
        return "\n".join(str(item) for item in (*self.instances.values(), *self.policies))


def _brief(value: Any, longest: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def plan_rows(schedule: Schedule) -> list[dict[str, Any]]:
    """Return the policies in the order of the file, by the names of `COLUMNS`."""
    return [plan_row(plan, schedule.instances[KINDS[plan.kind], plan.instance]) for plan in schedule.policies]


def plan_row(plan: PolicyPlan, instance: InstancePlan) -> dict[str, Any]:
    """Return kind, instance, class, when, how sparse, with what `args`."""
    told = (plan.kind, plan.instance, _class_name(instance), when(plan.window), target(plan, instance))
    return dict(zip(COLUMNS, (*told, _args(plan.args)), strict=True))


def levels_of(plan: PolicyPlan, instance: InstancePlan) -> Mapping[str, float] | None:
    """Return sparsities by parameter, those of the policy's `args` before those of the instance."""
    own: Mapping[str, float] | None = getattr(plan.args, "levels", None)
    return own if own is not None else instance.args.get("levels")


def target(plan: PolicyPlan, instance: InstancePlan) -> str:
    """Return the sparsity that a policy asks for; nothing where it follows from the weights."""
    args, levels = instance.args, levels_of(plan, instance)
    if levels:
        low, high = min(levels.values()), max(levels.values())
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    if "final_sparsity" in args:
        return f"{args['initial_sparsity']:g} -> {args['final_sparsity']:g}"
    if "sparsity_range" in args:
        low, high = args["sparsity_range"]
        return f"{low:g} to {high:g}"
    if {"n", "m"} <= args.keys():
        return f"{args['n']}:{args['m']}"
    for name, words in SIZES.items():
        if args.get(name) is not None:
            return words.format(args[name])
    level = next((args[name] for name in ("desired_sparsity", "target_sparsity", "sparsity") if args.get(name)), None)
    return "" if level is None else f"{level:g}{' of alive' if args.get('of') == 'alive' else ''}"


def goal_of(instance: InstancePlan) -> float | None:
    """Return the share of parameters or multiply-adds that a target wants removed; None without one."""
    args = instance.args
    if args.get("target_macs") is not None:
        return 1 - float(args["target_macs"])
    return args.get("target_sparsity")


def _class_name(instance: InstancePlan) -> str:
    """Return what schedules call the class."""
    own = instance.cls.__name__
    known = [name for name, cls in classes(instance.section).items() if cls is instance.cls]
    return own if own in known or not known else known[0]


def _args(args: Any) -> str:
    """Return those that are not as they are by default."""
    if args is None:
        return ""
    given = [(f.name, getattr(args, f.name), f.default) for f in fields(args) if f.name != "levels"]
    return ", ".join(f"{name}: {str(value).lower()}" for name, value, default in given if value != default)
