"""Reads what a finished run left in its folder. The folder may be a stranger's: each value is checked."""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.compression import CheckpointError
from potstill.compression.files.checked import Field, reading
from potstill.thinning.files.checked import parse_json
from potstill.thinning.files.regular import read_whole

logger = logging.getLogger("potstill")

SUMMARY, SWEEP = "summary.json", "sweep.json"
MOST = 1 << 23
"""Bytes of a file: a summary of a network with 10,000 layers has 2 MB, and a list of lists takes a hundred times its
bytes to look through."""
MOST_BATCHES = 100
"""Batch sizes with a latency: each is a column of a table and a picture."""
LONGEST = 1e12
"""Milliseconds, some thirty years: sums of such numbers do not overflow."""


@dataclass(frozen=True)
class Network:
    """What a network costs and reaches: MACs of one image, milliseconds by batch size, accuracies in percent."""

    parameters: int
    macs: int
    bytes: int
    latency: Mapping[str, float]
    top1: float | None = None
    val_top1: float | None = None
    packed_bytes: int | None = None


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        path: its folder.
        name: what tables call it.
        dense: the network before compression.
        masked: with zeros, in the dense one's shapes.
        thinned: what it became.
        summary: all that `summary.json` says.
        values: what a sweep set, by path in the schedule.
    """

    path: Path
    name: str
    dense: Network
    masked: Network
    thinned: Network
    summary: Field = field(repr=False)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def zeros(self) -> float:
        """Percent of the thinned network's parameters that are 0."""
        return self.summary["zeros"].number()

    def text(self, name: str) -> str:
        """Return a text of the summary; nothing where an earlier version wrote none."""
        return self.summary[name].text() if name in self.summary.value else ""


def read_run(folder: Path, name: str | None = None, values: Mapping[str, Any] | None = None) -> StoredRun:
    """Return a finished run.

    Raises:
        CheckpointError: it is not finished, or its summary is damaged.
    """
    path = folder / SUMMARY
    if not path.exists():
        raise CheckpointError(f"{folder} holds no finished run ({SUMMARY} is missing)")
    with reading(str(path)):
        summary = Field(parse_json(read_whole(path, MOST)))
        dense, masked, thinned = (_network(summary[which]) for which in ("dense", "masked", "thinned"))
        return StoredRun(folder, name or folder.resolve().name, dense, masked, thinned, summary, values or {})


def _network(state: Field) -> Network:
    parameters, macs, size = (state[name].integer() for name in ("parameters", "macs", "bytes"))
    measured = state["latency_ms"].mapping()
    if len(measured) > MOST_BATCHES:
        raise state["latency_ms"].error(f"at most {MOST_BATCHES} batch sizes")
    latency = {batch: _up_to(value, LONGEST) for batch, value in measured.items()}
    packed = None if state.value.get("packed_bytes") is None else state["packed_bytes"].integer()
    return Network(parameters, macs, size, latency, _known(state, "top1"), _known(state, "val_top1"), packed)


def _known(state: Field, name: str) -> float | None:
    """Return a percentage, or None where it is not known."""
    return None if state.value.get(name) is None else _up_to(state[name], 100)


def _up_to(state: Field, most: float) -> float:
    """Return a number from 0 to `most`."""
    if not 0 <= state.number() <= most:
        raise state.error(f"a number from 0 to {most:g}")
    return state.number()


def read_metrics(folder: Path) -> dict[str, list[float | None]]:
    """Return the columns of `metrics.csv` by name; a cell without a number is None.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / "metrics.csv"
    if not path.exists():
        return {}
    with reading(str(path)), _as_rows():
        head, *rows = [row for row in csv.reader(io.StringIO(read_whole(path, MOST).decode())) if row] or [[]]
        for number, row in enumerate(rows, 1):
            if len(row) != len(head):  # filled up, short rows of many columns would be more than the file has bytes
                raise ValueError(f"row {number} has {len(row):,} cells, and the head {len(head):,}")
        columns = zip(*rows, strict=True) if rows else ()
        return {name: list(map(_number, column)) for name, column in zip(head, columns, strict=False)}


@contextmanager
def _as_rows() -> Iterator[None]:
    """Let what is wrong with a CSV file be wrong with its values."""
    try:
        yield
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _number(text: str) -> float | None:
    return float(text) if text else None


def runs_in(folders: Iterable[Path]) -> list[StoredRun]:
    """Return the finished runs of folders; a sweep's folder stands for its dense network and all of its runs.

    A run that is named twice is returned once. What a sweep has not finished yet is left out, with a warning.

    Raises:
        CheckpointError: a folder holds none, or a summary is damaged.
    """
    # A run, wherever links lead to it -> the folder that was given, and how much of its path names it.
    found: dict[Path, tuple[Path, int]] = {}
    for folder in folders:
        sweep = (folder / SWEEP).exists() and not (folder / SUMMARY).exists()
        for path in _finished(folder) if sweep else [folder]:
            found.setdefault(path.resolve(), (path, 2 if sweep else 1))
    return [read_run(path, name) for (path, _), name in zip(found.values(), _names(found), strict=True)]


def _finished(sweep: Path) -> list[Path]:
    """Return the folders of a sweep's finished runs.

    Raises:
        CheckpointError: there is none.
    """
    inside = sorted(path for path in sweep.iterdir() if path.is_dir() and not path.is_symlink())
    finished = [path for path in inside if (path / SUMMARY).exists()]
    if not finished:
        raise CheckpointError(f"{sweep} is a sweep of which no run is finished yet: --resume-from goes on with it")
    if left := [path.name for path in inside if path not in finished and (path / "checkpoint.pt").exists()]:
        logger.warning("%s: not finished and left out: %s; --resume-from goes on with it", sweep, ", ".join(left))
    return finished


def _names(found: Mapping[Path, tuple[Path, int]]) -> list[str]:
    """Return what tells runs apart: the last parts of their paths, one more where they would be called alike."""
    parts = {path: count for path, (_, count) in found.items()}
    while True:
        names = {path: "/".join(path.parts[-count:]) for path, count in parts.items()}
        calls = Counter(names.values())
        alike = [path for path, name in names.items() if calls[name] > 1 and parts[path] < len(path.parts)]
        if not alike:
            return list(names.values())
        parts.update((path, parts[path] + 1) for path in alike)
