"""A checked schedule as plain data, which can be printed and compared before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.thinning.files.html import html_lines, html_table
from potstill.thinning.files.text import printable

from ..steps import Window
from .plan_table import COLUMNS, plan_rows


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
    """

    instances: Mapping[tuple[str, str], InstancePlan]
    policies: Sequence[PolicyPlan]
    text: str = ""
    path: Path | None = None
    warnings: list[str] = field(default_factory=list)

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
