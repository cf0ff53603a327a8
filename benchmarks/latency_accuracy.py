"""What a target of latency is worth beside one of multiply-adds: test accuracy at equal latency, over seeds.

    python benchmarks/latency_accuracy.py --data CIFAR10

CIFAR10 is a folder with train/<class>/* and test/<class>/*. For each seed a MobileNet (width 0.25) is trained on some
of the images; from it go networks with gates on the pointwise convolutions and a target of latency, and others with one
of multiply-adds, all for as many epochs. Latencies are measured side by side. At the latency of each network of the
first kind, the accuracy of the second kind is read between the two networks whose latencies lie around it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from tabulate import tabulate

from potstill.command.compare.stored import StoredRun
from potstill.command.sweep import sweep

BATCH = 64
DENSE, GATES, TUNING = 8, 4, 4
"""Epochs of each part of the training."""


def main() -> None:
    """Print the accuracies at each latency, and the mean of the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="so many training images")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.85, 0.7])
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.3, 0.18, 0.1])
    options = parser.parse_args()
    rows = [row for seed in range(options.seeds) for row in rows_of(seed, options)]
    print(tabulate(rows, "keys", "github", floatfmt=("", ".2f", ".3f", ".3f", ".2f", ".2f")))
    known = [row["top1"] - row["by MACs"] for row in rows if row["by MACs"] is not None]
    if known:
        print(f"\nmean difference at equal latency: {mean(known):+.2f} points, {len(known)} networks")


def rows_of(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one seed's networks, and return a row for each that was asked for a latency."""
    by_latency, by_macs = (points(trained(seed, goal, getattr(options, goal), options)) for goal in ("latency", "macs"))
    return [
        {"seed": seed, "asked": asked, "latency": share, "MACs": macs, "top1": top1, "by MACs": between(by_macs, share)}
        for asked, (share, macs, top1) in zip(options.latency, by_latency[1:], strict=True)
    ]


def trained(seed: int, goal: str, values: Sequence[float], options: argparse.Namespace) -> list[StoredRun]:
    """Return the dense network of a sweep over targets, and those that went on from it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "schedule.yaml"
        path.write_text(yaml.safe_dump(schedule(goal, values[0])))
        images = ["--dataset", "imagefolder", "--data", options.data.resolve(), "--input-size", 32]
        limits = ["--limit-train", options.images, "--limit-test", options.test_images, "--limit-validation", 500]
        training = ["-b", BATCH, "--lr", 0.05, "--epochs", DENSE + GATES + TUNING, "--augmentation", "crop_flip"]
        arguments = ["--arch", "mobilenet_025", *images, *limits, *training, "--seed", seed, "--compress", path]
        return sweep([*map(str, arguments), "-o", folder], {f"gates.target_{goal}": values}).runs


def schedule(goal: str, value: float) -> dict[str, Any]:
    """Return a schedule: learning rates fall for the dense network, and once more for what goes on from it."""
    gates = {"class": "L0Regularizer", "weights": ["model.*.3.weight"], "droprate_init": 0.05, f"target_{goal}": value}
    if goal == "latency":
        gates["latency_batch"] = BATCH
    rate = {"class": "CosineAnnealingWarmRestarts", "T_0": DENSE}
    policies = [
        {"lr_scheduler": {"instance_name": "rate"}, "starting_epoch": 0, "ending_epoch": DENSE + GATES + TUNING},
        {"regularizer": {"instance_name": "gates"}, "starting_epoch": DENSE, "ending_epoch": DENSE + GATES},
    ]
    return {"lr_schedulers": {"rate": rate}, "regularizers": {"gates": gates}, "policies": policies}


def points(runs: Sequence[StoredRun]) -> list[tuple[float, float, float]]:
    """Return for each network its share of the dense one's latency and multiply-adds, and its test accuracy."""
    batch = str(BATCH)
    return [
        (
            run.thinned.latency[batch] / run.dense.latency[batch],
            run.thinned.macs / run.dense.macs,
            run.thinned.top1 or 0,
        )
        for run in runs
    ]


def between(known: Sequence[tuple[float, float, float]], share: float) -> float | None:
    """Return the accuracy at a latency, on the line between the networks around it; None beyond them."""
    ordered = sorted(known)
    for (low, _, first), (high, _, second) in pairwise(ordered):
        if low <= share <= high:
            return first + (second - first) * (share - low) / (high - low)
    return None


if __name__ == "__main__":
    main()
