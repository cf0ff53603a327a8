"""The points of a sweep: one schedule for each combination of values, checked before anything trains."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from potstill.compression.language.errors import Report
from potstill.compression.language.yaml_reader import read
from potstill.compression.schedule import Schedule, load_schedule

from ..cli.sweep_options import Axis
from ..errors import UsageError
from .places import find_place, with_value

LONGEST = 100
MOST = 1000
"""So many runs a grid may have: a few values of a few axes are a million."""
STRANGE = re.compile(r"[^A-Za-z0-9._+=,-]+")


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: of its folder, `gates.target_sparsity=0.3`.
        values: what it sets, by path.
        data: its schedule.
    """

    name: str
    values: Mapping[str, Any]
    data: Mapping[str, Any] = field(repr=False)

    @property
    def text(self) -> str:
        """Its schedule as YAML."""
        told = ", ".join(f"{key}: {_shown(value)}" for key, value in self.values.items())
        body = yaml.safe_dump(dict(self.data), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        return f"# {told}\n{body}"


def variants(schedule: str | Path | Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Yield the schedules of a grid, the last axis running fastest: for a training loop of your own.

    Args:
        schedule: a file, the name of a shipped one, or a mapping.
        axes: values by their path in the schedule, such as `gates.target_sparsity`.

    Raises:
        ScheduleError: the schedule has mistakes.
        UsageError: a path leads nowhere.
    """
    data = schedule if isinstance(schedule, Mapping) else data_of(load_schedule(schedule, None))
    return grid(data, [Axis(key, tuple(values)) for key, values in axes.items()])


def data_of(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule's file as plain data."""
    return dict(read(schedule.text, Report()).data)


def grid(data: Mapping[str, Any], axes: Sequence[Axis]) -> Iterator[Point]:
    """Yield a point for each combination of values.

    Raises:
        UsageError: a path leads nowhere, or there are more than `MOST` combinations.
    """
    if (count := math.prod(len(one.values) for one in axes)) > MOST:
        raise UsageError(f"--sweep: these values make {count:,} runs, and {MOST:,} are the most: give fewer")
    for one in axes:
        find_place(data, one.key)
    for values in itertools.product(*(one.values for one in axes)):
        yield point(data, {one.key: value for one, value in zip(axes, values, strict=True)})


def point(data: Mapping[str, Any], values: Mapping[str, Any]) -> Point:
    """Return the point of some values.

    Raises:
        UsageError: a path leads nowhere.
    """
    changed = dict(data)
    for key, value in values.items():
        changed = with_value(changed, find_place(changed, key), value)
    return Point(folder_name(values), values, changed)


def folder_name(values: Mapping[str, Any]) -> str:
    """Return what a point's folder is called: `key=value,key=value`, where that can be a folder's name."""
    told = ",".join(f"{key}={_shown(value)}" for key, value in values.items())
    name = STRANGE.sub("_", told)
    if name == told and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
