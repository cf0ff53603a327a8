"""The report of a sweep or a comparison: the table that sorts, accuracy over each cost, widths of all runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from potstill.compression.files.checked import CheckpointError, reading
from potstill.compression.files.checkpoints import write_atomically

from ..compare.stored import SWEEP, StoredRun
from ..compare.table import compressed, costs, dense_points, front, on_test, reached, table
from .charts import Chart, scatter
from .render import page
from .run import FILE, MOST_ROWS, schedule_text


def write_comparison_report(
    folder: str | Path, runs: Sequence[StoredRun], told: Sequence[str] = (), failures: Mapping[str, str] | None = None
) -> Path:
    """Write `report.html` of several runs into a folder; return its path.

    Args:
        folder: where it goes; runs inside it are linked.
        runs: finished runs.
        told: sentences that stand first: what was asked, what was chosen.
        failures: why runs ended without a result, by name.

    Raises:
        CheckpointError: a summary is damaged.
    """
    path = Path(folder)
    found = table(runs).round(2)
    data = {
        "name": path.resolve().name,
        "commands": _commands(path, runs),
        "told": list(told),
        "heads": list(found),
        "rows": [
            {"link": _link(path, run), "cells": cells}
            for run, cells in zip(
                runs, found.astype(object).where(found.notna(), None).to_numpy().tolist(), strict=True
            )
        ],
        "charts": tradeoffs(runs),
        "layers": _layers(runs),
        "names": [run.name for run in runs],
        "failures": failures or {},
        "schedule": schedule_text(path),
    }
    write_atomically(path / FILE, page("comparison.html", data).encode())
    return path / FILE


def _link(folder: Path, run: StoredRun) -> str | None:
    """Return where a run's own report is, if that lies in the folder."""
    inside = run.path.parent == folder and (run.path / FILE).exists()
    return f"{quote(os.fsencode(run.path.name))}/{FILE}" if inside else None


def tradeoffs(runs: Sequence[StoredRun]) -> list[Chart]:
    """Return accuracy over each cost; runs whose accuracy is not known are left out."""
    shown, networks = compressed(runs), [run.thinned for run in runs]
    accuracy, images = reached(networks), "test" if on_test(networks) else "validation"
    found = []
    for name, cost in costs(networks).items():
        points = [(cost(run.thinned) or 0.0, accuracy(run.thinned) or 0.0, run.name) for run in shown]
        dense = [(at, top1, "dense") for one, top1 in dense_points(runs) if (at := cost(one)) is not None]
        title = f"{images} top1 (%) over {name}"
        found.append(scatter(title, points, dense, front([point[:2] for point in points])))
    return found if shown else []


def _commands(folder: Path, runs: Sequence[StoredRun]) -> dict[str, str]:
    """Return what to do with these runs -> the command for it."""
    if (folder / SWEEP).exists():
        onwards = f"compress-classifier --resume-from {shlex.quote(str(folder))}"
        return {"go on with what is not finished": onwards, "try more values": f"{onwards} --sweep KEY=VALUE,..."}
    return {"compare again": shlex.join(["compress-classifier", "--compare", *(str(run.path) for run in runs)])}


def _layers(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Return each layer's width before, and after in each run; None where a run has no such layer."""
    found: dict[str, dict[str, Any]] = {}
    for place, run in enumerate(runs):
        with reading(str(run.path / "summary.json")):
            for layer in run.summary["layers"].items() if "layers" in run.summary.value else ():
                name = layer["layer"].text()
                row = found.setdefault(name, {"layer": name, "before": 0, "after": [None] * len(runs)})
                if len(found) > MOST_ROWS:
                    raise CheckpointError(f"with it there are more than {MOST_ROWS:,} layers: compare fewer runs")
                row["before"] = max(row["before"], layer["before"].integer())
                row["after"][place] = layer["after"].integer()
    return list(found.values())
