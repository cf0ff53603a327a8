"""The table of GoogLeNet on CIFAR-10 with L0 gates: without, by strength, by target; stops and goes on.

A strength ends where it ends. So that a strength and a target can be compared at one size, a target is also asked for
exactly the sparsity that each fine-tuned strength reached.

    python benchmarks/l0_googlenet.py --data CIFAR10 --protocol full --device cuda --amp
    python benchmarks/l0_googlenet.py --data CIFAR10 --protocol short --epochs 12 --train 10000

`full` is the published protocol: 45,000 / 5,000 / 10,000 images, AdamW 1e-3 with decay 1e-4, batches of 128 and 180
epochs. `short` runs the same schedules with all times in proportion to its epochs and a one-cycle learning rate. Each
row is a run of the command line in `OUT/<protocol>/<row>`; what is there is not run again, what was cut off goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tabulate import tabulate

HERE = Path(__file__).resolve().parent
SCHEDULES = HERE.parent / "schedules" / "l0"
FULL_EPOCHS, TRAIN_IMAGES, HELD_OUT, BATCH = 180, 45_000, 5_000, 128
PEAK = 4e-3
"""Highest learning rate of the short protocol's one-cycle curve."""
STRENGTHS = (10, 20, 30, 50)


@dataclass(frozen=True)
class Row:
    """A row of the table: name, what it is about, whether it starts from the dense network, published results.

    `name` is the schedule's too, unless the row `matches` another one: then it asks for the sparsity of that row.
    """

    name: str
    what: str
    trained: bool
    published: tuple[float, float, float] | None = None
    matches: str | None = None

    def schedule(self, folder: Path) -> dict[str, Any]:
        """Return the full schedule; `folder` has the rows that were run."""
        schedule = yaml.safe_load((SCHEDULES / f"{'target_0.64' if self.matches else self.name}.yaml").read_text())
        if self.matches:
            summary = json.loads((folder / self.matches / "latest" / "summary.json").read_text())
            schedule["regularizers"]["gates"]["target_sparsity"] = round(sparsity(summary), 4)
        return schedule


def sparsity(summary: dict[str, Any]) -> float:
    """Return the share of the dense network's parameters that a run's thinning removed."""
    return 1 - summary["thinned"]["parameters"] / summary["dense"]["parameters"]


ROWS = (
    Row("none", "no gates", False, (90.12, 89.57, 0.0)),
    Row("scratch_0.25", "from scratch, strength 0.25", False, (88.66, 87.87, 0.06)),
    Row("scratch_0.5", "from scratch, strength 0.5", False, (86.9, 86.56, 0.22)),
    Row("scratch_1", "from scratch, strength 1", False, (83.2, 82.79, 0.55)),
    Row("finetune_10", "fine-tuned, strength 10", True, (90.44, 90.00, 0.10)),
    Row("finetune_20", "fine-tuned, strength 20", True, (88.8, 88.62, 0.39)),
    Row("finetune_30", "fine-tuned, strength 30", True, (86.5, 85.88, 0.64)),
    Row("finetune_50", "fine-tuned, strength 50", True, (80.78, 80.22, 0.815)),
    Row("target_0.10", "fine-tuned, target 0.10", True),
    Row("target_0.39", "fine-tuned, target 0.39", True),
    Row("target_0.55", "fine-tuned, target 0.55", True),
    Row("target_0.64", "fine-tuned, target 0.64", True),
    Row("target_0.815", "fine-tuned, target 0.815", True),
    *(Row(f"as_{old}", f"target: what strength {old} reached", True, matches=f"finetune_{old}") for old in STRENGTHS),
)


def shortened(schedule: dict[str, Any], epochs: int, steps: int) -> dict[str, Any]:
    """Return a full schedule, its times in proportion to `epochs`, and a one-cycle rate over `steps` minibatches."""
    cycle = {"class": "OneCycleLR", "max_lr": PEAK, "total_steps": steps, "cycle_momentum": False}
    policies = []
    for policy in schedule["policies"]:
        if "lr_scheduler" in policy:
            times = {"starting_minibatch": 0, "ending_minibatch": steps}
            policies.append({"lr_scheduler": {"instance_name": "cycle"}, **times})
        else:
            part = (policy["ending_epoch"] - policy["starting_epoch"]) / FULL_EPOCHS
            times = {"starting_minibatch": 0, "ending_minibatch": round(steps * part)}
            policies.append({"regularizer": policy["regularizer"], **times})
    return {**schedule, "lr_schedulers": {"cycle": cycle}, "policies": policies}


def command(row: Row, options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the command line of a row that is not there yet, or that goes on."""
    run = [sys.executable, "-m", "compress_classifier"]
    if (folder / "latest" / "checkpoint.pt").exists():
        return [*run, "--resume-from", str((folder / "latest").resolve()), *_data(options)]
    content, rate, path = row.schedule(options.folder), "0.001", folder / "schedule.yaml"
    if options.protocol == "short":
        steps, rate = options.epochs * -(-options.train // BATCH), str(PEAK / 25)
        content = shortened(content, options.epochs, steps)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    start = [f"--exp-load-weights-from={options.folder / 'none' / 'latest' / 'checkpoint.pt'}"] if row.trained else []
    return [*run, "--compress", str(path), "-o", str(folder), "--lr", rate, *start, *_data(options)]


def _data(options: argparse.Namespace) -> list[str]:
    limits = ["--limit-train", options.train, "--limit-validation", options.held_out, "--limit-test", options.test]
    return [
        *("--arch", "googlenet_cifar", "--dataset", "imagefolder", "--data", str(options.data), "--vs", "0.1"),
        *("--augmentation", "resized_crop", "--optimizer", "adamw", "--wd", "1e-4", "-b", str(BATCH)),
        *("--seed", str(options.seed), "--epochs", str(options.epochs), "--device", options.device),
        *(["--amp"] if options.amp else []),
        *(map(str, limits) if options.protocol == "short" else []),
    ]


def run_row(row: Row, options: argparse.Namespace) -> None:
    """Run a row unless its summary is there; its output goes to `output.txt` beside it."""
    folder = options.folder / row.name
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "latest" / "summary.json").exists():
        return
    arguments = command(row, options, folder)
    print(" ".join(arguments), flush=True)
    with (folder / "output.txt").open("a") as output:
        status = subprocess.run(arguments, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        sys.exit(f"{row.name} ended with status {status}: see {folder / 'output.txt'}; run this again to go on")


def cells(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what the finished rows show."""
    for row in ROWS:
        latest = options.folder / row.name / "latest"
        if not (latest / "summary.json").exists():
            continue
        summary = json.loads((latest / "summary.json").read_text())
        metrics = list(csv.DictReader((latest / "metrics.csv").open()))[-1]
        dense, thin = summary["dense"], summary["thinned"]
        published = row.published and "{:.2f} / {:.2f} at {:.3g}".format(*row.published)
        yield {
            "row": row.what,
            "validation %": f"{float(metrics['val_top1']):.2f}",
            "test %": f"{thin['top1']:.2f}",
            "sparsity": f"{sparsity(summary):.3f}",
            "parameters": f"{thin['parameters']:,}",
            "MACs (M)": f"{thin['macs'] / 1e6:.1f}",
            "bytes": f"{thin['bytes']:,}",
            "latency 1": f"{thin['latency_ms']['1'] / dense['latency_ms']['1']:.2f}",
            "latency 64": f"{thin['latency_ms']['64'] / dense['latency_ms']['64']:.2f}",
            "published (val / test at sparsity)": published or "",
        }


def table(options: argparse.Namespace) -> str:
    """Return the table in Markdown, with what must be known to run it again."""
    again = f"python benchmarks/l0_googlenet.py --data CIFAR10 --protocol {options.protocol} --device {options.device}"
    if options.protocol == "short":
        again += f" --epochs {options.epochs} --train {options.train} --test {options.test}"
    again += f" --seed {options.seed}" + " --amp" * options.amp
    hardware = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor() or "CPU"
    lines = [
        f"Protocol `{options.protocol}`: {options.epochs} epochs of {options.train:,} images in batches of {BATCH}, "
        f"validated on {options.held_out:,}, tested on {options.test:,}; seed {options.seed}.",
        f"Command: `{again}`. Hardware: {hardware}, {torch.get_num_threads()} threads; torch {torch.__version__}.",
        "Sparsity is the share of parameters that thinning removed; latency is relative to the dense network's.",
    ]
    return "\n".join(lines) + "\n\n" + tabulate(list(cells(options)), "keys", "github", disable_numparse=True) + "\n"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, with what follows from the protocol."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=("full", "short"), default="short")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("runs/l0_googlenet"))
    parser.add_argument("--table", type=Path, help="write the table here too, after each row")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="row (repeatable)")
    parser.add_argument("--epochs", type=int, default=12, help="of the short protocol (default: %(default)s)")
    parser.add_argument("--train", type=int, default=10_000, help="training images of the short protocol")
    parser.add_argument("--test", type=int, default=2_000, help="test images of the short protocol")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.held_out = min(1_000, HELD_OUT)
    if options.protocol == "full":
        options.epochs, options.train, options.held_out, options.test = FULL_EPOCHS, TRAIN_IMAGES, HELD_OUT, 10_000
    options.folder = (options.out / options.protocol).resolve()
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rows that are missing and print the table."""
    options = parse(arguments)
    for row in ROWS:
        if not options.only or row.name in options.only:
            run_row(row, options)
            if options.table:
                options.table.write_text(table(options))
    print(table(options))


if __name__ == "__main__":
    main()
