"""The options of `--sweep`: which values of the schedule are tried, and what is looked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from potstill.compression.files.checked import Field, reading
from potstill.compression.language.errors import Report
from potstill.compression.language.yaml_reader import read
from potstill.thinning.files.checked import parse_json
from potstill.thinning.files.regular import open_regular
from potstill.thinning.files.text import printable

from .option import Group, of_this_call
from .option_types import count, number

FILE = "sweep.json"
MOST = 1 << 20


@dataclass(frozen=True)
class Axis:
    """A value of the schedule, by its path, and what it is set to in turn."""

    key: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """Read `gates.target_sparsity=0.3,0.5`: values as YAML has them in a list.

        Raises:
            ValueError: it is no such text.
        """
        key, sign, values = text.partition("=")
        report = Report()
        found = read(f"[{values}]", report).data if sign else None
        if report.problems or not isinstance(found, list) or not found or not key.strip():
            raise ValueError(f"{text[:60]!a} is not KEY=VALUE,VALUE,... such as gates.target_sparsity=0.3,0.5,0.7")
        if any(value in found[:place] for place, value in enumerate(found)):
            raise ValueError(f"{text[:60]!a} names a value twice")
        return cls(key.strip(), tuple(found))

    @property
    def numeric(self) -> bool:
        """Return whether it has two numbers, between which there are others."""
        return len(self.values) == 2 and all(type(value) in (int, float) for value in self.values)


def axis(text: str) -> str:
    """Return the text of an axis, which is kept as it is."""
    try:
        Axis.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(printable(error)) from None
    return text


@dataclass(frozen=True)
class SweepOptions(Group):
    """One training for each value."""

    TITLE: ClassVar[str] = "sweeps"

    sweep: tuple[str, ...] = of_this_call(
        "--sweep", action="append", type=axis, default=(), metavar="KEY=VALUE,VALUE,...",
        help="train from one dense network with each of these values in the schedule (repeatable: a grid)",
    )  # fmt: skip
    within: float | None = of_this_call(
        "--within", type=number, metavar="POINTS",
        help="with --sweep KEY=FROM,TO: look between the two for the smallest network that loses at most so many points"
        " of the dense one's validation accuracy",
    )  # fmt: skip
    sweep_runs: int = of_this_call(
        "--sweep-runs", type=count, default=8, metavar="N", help="most runs of --within (default: %(default)s)"
    )
    sweep_jobs: int = of_this_call(
        "--sweep-jobs", type=count, default=1, metavar="N", help="runs at a time, a process each (default: %(default)s)"
    )

    @property
    def axes(self) -> list[Axis]:
        """Return what is varied."""
        return [Axis.parse(text) for text in self.sweep]

    def problem(self) -> str | None:
        """Return what is wrong with the options together, or None."""
        keys = [one.key for one in self.axes]
        if len(set(keys)) < len(keys):
            return f"--sweep {max(keys, key=keys.count)} stands twice: give all its values at once"
        if self.within is not None and not (len(self.axes) == 1 and self.axes[0].numeric):
            return "--within needs one --sweep KEY=FROM,TO with two numbers: it looks for the best between them"
        return None


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return (folder / FILE).is_file() and not (folder / "checkpoint.pt").exists()


def stored_sweep(folder: Path) -> dict[str, Any]:
    """Return what a sweep's folder says of it, checked: `options` and `departs` as stored, the others as options.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / FILE
    with reading(str(path)), open_regular(path, "rb") as file:
        state = Field(parse_json(file.read(MOST)))
        state.only(["options", "departs", *SweepOptions.__dataclass_fields__])
        return {
            "options": state["options"].mapping(),
            "departs": state["departs"].integer(),
            "sweep": list(_texts(state["sweep"])),
            "within": None if state["within"].value is None else abs(state["within"].number()),
            "sweep_runs": state["sweep_runs"].integer(1, 2**31 - 1),
            "sweep_jobs": state["sweep_jobs"].integer(1, 2**31 - 1),
        }


def _texts(state: Field) -> Iterator[str]:
    for item in state.items():
        Axis.parse(item.text())
        yield item.text()
