"""What the rows came to: one folder each, `results.json` over all, a table and a picture of it, and a check of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from googlenet_table.rows import PUBLISHED, SIDE, Protocol, Row, phases, rows
from potstill.compression import load_checkpoint
from potstill.compression.files.checkpoints import save_checkpoint
from potstill.models import create_model
from potstill.models.datasets import load_dataset
from potstill.thinning import count_macs, load

KEPT = (
    *("thinned.safetensors", "thinned.json", "thinned.probe.safetensors"),
    *("schedule.yaml", "metrics.csv", "summary.json"),
)
START = ("epoch", "minibatch", "arch", "config", "num_classes", "classes", "input_shape", "mean", "std", "state_dict")
START += ("split", "split_names", "scheduler")
"""What other rows need of a dense network's checkpoint: its weights, and which images are held out."""
DENSE_PARAMETERS = 260_650
KINDS = {
    "dense": "dense",
    "target": "gates, target",
    "strength": "gates, strength",
    "as": "gates, target: what the strength reached",
    "longer": "dense, trained on",
    "coupled": "L1 norms at once, same size",
    "scratch": "same shape, from nothing",
}


def keep(run: Path, place: Path, row: Row) -> None:
    """Copy what is worth keeping of a finished run; of a dense one also what other rows start from."""
    place.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run / name).exists():
            shutil.copyfile(run / name, place / name)
    if row.kind == "dense":
        checkpoint = load_checkpoint(run / "checkpoint.pt")
        save_checkpoint(place / "checkpoint.pt", {name: checkpoint[name] for name in START})


def size(place: Path) -> tuple[int, int]:
    """Return parameters and multiply-adds of a finished row."""
    thinned = json.loads((place / "summary.json").read_text())["thinned"]
    return thinned["parameters"], thinned["macs"]


def sparsity(place: Path) -> float:
    """Return the share of the dense network's parameters that a finished row is without."""
    return 1 - size(place)[0] / DENSE_PARAMETERS


def collect(folder: Path, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the facts of all finished rows, and write them to `results.json`."""
    found = [_facts(folder, row, protocol) for row in rows(protocol) if (folder / row.name / "summary.json").exists()]
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def _facts(folder: Path, row: Row, protocol: Protocol) -> dict[str, Any]:
    place = folder / row.name
    summary = json.loads((place / "summary.json").read_text())
    metrics = list(csv.DictReader((place / "metrics.csv").open()))
    parameters, macs = size(place)
    return {
        "row": row.name,
        "kind": row.kind,
        "target": row.value if row.kind == "target" else None,
        "sparsity": round(sparsity(place), 4),
        "parameters": parameters,
        "macs": macs,
        "test_top1": summary["thinned"]["top1"],
        "validation_top1": float(metrics[-1]["val_top1"]),
        "epochs": total_epochs(row, protocol),
        "seed": row.seed,
        "file": f"{row.name}/thinned.safetensors",
    }


def total_epochs(row: Row, protocol: Protocol) -> int:
    """Return the epochs that a row's network has seen, its start included."""
    runs = phases(row, protocol, lambda row: 0.0, lambda row: Path(row.name))
    starts = 0 if row.kind in ("dense", "scratch") else protocol.small + protocol.dense
    return starts + sum(run.epochs for run in runs)


def table(found: list[dict[str, Any]]) -> str:
    """Return the rows in Markdown, each beside the best published accuracy at its sparsity or a lower one."""
    return tabulate([dict(_cells(facts)) for facts in found], "keys", "github", disable_numparse=True)


def _cells(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    beaten = [f"{top1:.2f} at {part:g}" for top1, part in beats(facts)]
    yield "network", KINDS[facts["kind"]] + (f", seed {facts['seed']}" if facts["seed"] else "")
    yield "asked", "" if facts["target"] is None else f"{facts['target']:g}"
    yield "sparsity", f"{facts['sparsity']:.3f}"
    yield "parameters", f"{facts['parameters']:,}"
    yield "MACs (M)", f"{facts['macs'] / 1e6:.1f}"
    yield "validation %", f"{facts['validation_top1']:.2f}"
    yield "test %", f"{facts['test_top1']:.2f}"
    yield "epochs", str(facts["epochs"])
    yield "beats (published)", ", ".join(beaten)


def beats(facts: dict[str, Any]) -> list[tuple[float, float]]:
    """Return the published rows that a network beats: at least as sparse, and more accurate on the test images."""
    return [row for row in PUBLISHED if facts["test_top1"] > row[0] and facts["sparsity"] >= row[1] - 5e-4]


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over sparsity: the published points, ours, and the controls."""
    from potstill.plots.style import LINES, figure_of, save

    figure, (axes,) = figure_of(1, width=7, height=4.2)
    axes.plot(*_points((part, top1) for top1, part in sorted(PUBLISHED, key=lambda row: row[1])), "s--", color=LINES[1])
    axes.lines[-1].set_label("published")
    kinds = {"target": ("o-", 0), "strength": ("v", 2), "as": ("^", 2), "coupled": ("D", 3), "scratch": ("x", 4)}
    for kind, (marker, color) in kinds.items():
        points = [(facts["sparsity"], facts["test_top1"]) for facts in found if facts["kind"] == kind]
        if points:
            axes.plot(*_points(sorted(points)), marker, color=LINES[color], label=KINDS[kind])
    for facts in found:
        line = {"dense": ":", "longer": "-."}.get(facts["kind"])
        if line:
            axes.axhline(facts["test_top1"], color=LINES[5], linestyle=line, label=KINDS[facts["kind"]])
    axes.set_xlabel("share of the parameters gone")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize=8)
    save(figure, path)


def _points(points: Any) -> tuple[list[float], list[float]]:
    across, up = zip(*points, strict=True)
    return list(across), list(up)


def verify(folder: Path, data: Path) -> str:
    """Load each file of the table into the bare network and test it; return both accuracies side by side."""
    images = load_dataset("imagefolder", data, input_shape=(3, SIDE, SIDE), mean=MEAN, std=STD).test
    lines = []
    for facts in json.loads((folder / "results.json").read_text()):
        model = load(create_model("googlenet_cifar"), folder / facts["file"])
        macs = count_macs(model, torch.zeros(1, 3, SIDE, SIDE))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        measured = {"test %": f"{accuracy(model, images):.2f}", "parameters": f"{parameters:,}", "MACs": f"{macs:,}"}
        lines.append({"row": facts["row"], "table's test %": f"{facts['test_top1']:.2f}", **measured})
    return tabulate(lines, "keys", "github", disable_numparse=True)


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@torch.no_grad()
def accuracy(model: torch.nn.Module, images: Any) -> float:
    """Return the top-1 accuracy in %."""
    model = model.to(memory_format=torch.channels_last)  # small batches in this layout take a quarter of the time
    right = [(model(x).argmax(1) == y).sum().item() for x, y in images.batches(50)]
    return 100 * sum(right) / len(images)
