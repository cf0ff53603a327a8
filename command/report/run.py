"""The report of one run: made of the files in its folder, which may be a stranger's."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any

from potstill.compression.files.checked import CheckpointError, Field, reading
from potstill.compression.files.checkpoints import write_atomically
from potstill.thinning.files.checked import parse_json
from potstill.thinning.files.regular import read_whole
from potstill.thinning.files.text import Lines, printable

from ..compare.stored import MOST as MOST_BYTES
from ..compare.stored import StoredRun, read_metrics, read_run
from ..exports import exports
from .charts import Chart, line_chart
from .render import page

FILE = "report.html"
KNOWN = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1", "lr", "zeros", "gone")
MOST = 1000
"""Epochs that are drawn: of more, evenly chosen ones."""
MOST_ROWS, MOST_COLUMNS = 10_000, 200
"""Of a table so many are shown, and a note says of how many."""


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into the folder of a finished run, of what the other files there say; return its path.

    Raises:
        CheckpointError: the run is not finished, or its files are damaged.
    """
    path = Path(folder)
    run = read_run(path)
    every = read_metrics(path)
    metrics = dict(islice(every.items(), MOST_COLUMNS))
    with reading(str(path)):
        facts = _facts(run)
        facts["notes"] += _left_out(every, MOST_COLUMNS, "columns of metrics.csv")
        data = {
            **facts,
            "run": run,
            "where": str(path),
            "charts": _charts(metrics),
            "metrics": _rows(metrics),
            "environment": _environment(path),
            "schedule": schedule_text(path),
            "commands": _commands(run),
            "code": _code(run),
        }
    write_atomically(path / FILE, page("run.html", data).encode())
    return path / FILE


def _facts(run: StoredRun) -> dict[str, Any]:
    """Return what the summary says, checked; nothing of what earlier versions did not write."""
    state = run.summary
    return {
        "difference": state["max_relative_difference"].number(),
        "network": state["network"].text(),
        "zeros": state["zeros"].number(),
        "gone": state["gone"].number(),
        "arch": run.text("arch"),
        "layout": run.text("layout"),
        "dataset": run.text("dataset"),
        "epochs": _optional(state, "epochs", Field.integer),
        "seed": _optional(state, "seed", Field.integer),
        "account": _table(_items(state, "account")[:MOST_ROWS]),
        "policies": [_policy(policy) for policy in _items(state, "policies")],
        "layers": [_layer(layer) for layer in _items(state, "layers")[:MOST_ROWS]],
        "refused": [_refusal(kept) for kept in _items(state, "refused")],
        "exports": _exports(state),
        "notes": [
            *(note.text() for note in _items(state, "notes")),
            *_left_out(_items(state, "account"), MOST_ROWS, "rows of the account"),
            *_left_out(_items(state, "layers"), MOST_ROWS, "layers"),
        ],
    }


def _left_out(items: Sized, most: int, what: str) -> list[str]:
    """Return the note that not all are shown; nothing where all are."""
    return [f"of {len(items):,} {what} the first {most:,} are shown"] if len(items) > most else []


def _items(state: Field, name: str) -> list[Field]:
    return state[name].items() if name in state.value else []


def _optional(state: Field, name: str, read: Any) -> Any:
    return read(state[name]) if name in state.value else None


def _policy(state: Field) -> dict[str, Any]:
    texts = {name: state[name].text() for name in ("name", "acts", "when")}
    first, last = (state[name].integer() for name in ("first", "last"))
    return {**texts, "first": first, "last": max(first, last), "compresses": state["compresses"].flag()}


def _layer(state: Field) -> dict[str, Any]:
    names = ("before", "after", "parameters_before", "parameters_after", "zeros")
    return {"layer": state["layer"].text(), **{name: state[name].integer() for name in names}}


def _refusal(state: Field) -> dict[str, Any]:
    return {"channels": state["channels"].integer(), "use": state["use"].text(), "reason": state["reason"].text()}


def _exports(state: Field) -> dict[str, Any]:
    """Return what was written for other programs, a row a format."""
    names = ("file", "bytes", "difference", "top1", "failed")
    known = state["exports"].mapping() if "exports" in state.value else {}
    rows = [[name, *(_plain(row[key]) if key in row.value else None for key in names)] for name, row in known.items()]
    return {"heads": ["format", "file", "bytes", "difference", "top1 (%)", "failed"], "rows": rows}


def _table(rows: Sequence[Field]) -> dict[str, Any]:
    """Return the columns that say something, and the rows."""
    found = [{name: _plain(value) for name, value in row.mapping().items()} for row in rows]
    names = dict.fromkeys(name for row in found for name in row)
    if len(names) > MOST_COLUMNS:
        raise CheckpointError(f"account: has {len(names):,} columns, and {MOST_COLUMNS} are the most")
    heads = [name for name in names if any(row.get(name) not in (None, "") for row in found)]
    return {"heads": heads, "rows": [[row.get(name) for name in heads] for row in found]}


def _plain(value: Field) -> Any:
    """Return a text, a number, or nothing."""
    return value.value if value.value is None or isinstance(value.value, (str, bool)) else value.number()


def _charts(metrics: Mapping[str, list[float | None]]) -> list[Chart]:
    """Return loss, accuracy, zeros and gone, learning rate, and a chart for each part of the loss and each gate."""
    panels: dict[str, dict[str, str]] = {
        "loss": {"training": "train_loss", "validation": "val_loss"},
        "top1 (%)": {"training": "train_top1", "validation": "val_top1"},
        "zeros and gone (%)": {"zeros": "zeros", "gone": "gone"},
        "learning rate": {"learning rate": "lr"},
        **{name: {name: name} for name in metrics if name not in KNOWN},
    }
    kept = {name: values[:: -(-len(values) // MOST) or 1] for name, values in metrics.items()}
    found = [
        line_chart(
            title, {name: kept[column] for name, column in columns.items() if column in kept}, title == "learning rate"
        )
        for title, columns in panels.items()
    ]
    return [chart for chart in found if any(line.path for line in chart.lines)]


def _rows(metrics: Mapping[str, list[float | None]]) -> dict[str, Any]:
    rows = list(zip(*metrics.values(), strict=True))
    return {"heads": list(metrics), "rows": rows[:: -(-len(rows) // MOST) or 1]}


def _environment(folder: Path) -> dict[str, str]:
    """Return what the run was started with, on what, as texts."""
    path = folder / "environment.json"
    if not path.exists():
        return {}
    with reading(str(path)):
        return {name: _told(value) for name, value in Field(parse_json(read_whole(path, MOST_BYTES))).mapping().items()}


def _told(value: Field) -> str:
    if isinstance(value.value, list):
        return shlex.join(item.text() for item in value.items())
    return "none" if value.value is None else str(_plain(value))


def schedule_text(folder: Path) -> Lines:
    """Return the schedule of a folder line by line; nothing where there is none."""
    path = folder / "schedule.yaml"
    text = read_whole(path, MOST_BYTES).decode("utf-8", "replace") if path.exists() else ""
    return Lines("\n".join(map(printable, text.rstrip().split("\n"))))


def _commands(run: StoredRun) -> dict[str, str]:
    """Return what to do with the run -> the command for it."""
    where = shlex.quote(str(run.path))
    program = f"compress-classifier --resume-from {where}"
    onwards = {"go on": program, "train longer": f"{program} --epochs N", "test it again": f"{program} -e"}
    return onwards | {f"write it {export.help}": f"{program} --export-{name}" for name, export in exports().items()}


def _code(run: StoredRun) -> Lines:
    """Return how a program loads the thinned network; nothing where the summary does not say of which it is."""
    if not run.text("arch"):
        return Lines()
    channels = [size.integer() for size in run.summary["input_shape"].items()[:1]]
    if not channels:
        raise run.summary["input_shape"].error("channels, height and width")
    sizes = f"{run.summary['num_classes'].integer()}, {channels[0]}"
    lines = (
        "from potstill.models import create_model",
        "from potstill.thinning import load",
        "",
        f"model = create_model({run.text('arch')!r}, {sizes})",
        f"load(model, {str(run.path / 'thinned.safetensors')!r})",
    )
    return Lines("\n".join(map(printable, lines)))
