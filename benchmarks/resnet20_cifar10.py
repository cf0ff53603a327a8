"""ResNet-20 on CIFAR-10: what some methods cost in accuracy, all trained from scratch for the same number of epochs.

    python benchmarks/resnet20_cifar10.py --data CIFAR10 --epochs 40 --device cuda --at-once 5

SGD with momentum 0.9 and weight decay 5e-4, batches of 128, learning rate 0.1 along a half cosine; compression begins
after a tenth of the epochs and is over after seven tenths. 45,000 images train; each row is a run of the command line
in `OUT/<row>`; what is finished there is not run again. Options that are not known here go to the command line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from tabulate import tabulate

LAYERS = ["layer*.conv*.weight"]
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dense": ("dense", "", {}),
    "agp": (
        "single weights, AGP to 80 %",
        "pruner",
        {"class": "AutomatedGradualPruner", "initial_sparsity": 0.05, "final_sparsity": 0.8, "weights": LAYERS},
    ),
    "global": (
        "single weights of all layers together, to 90 %",
        "pruner",
        {"class": "GlobalMagnitudePruner_AGP", "initial_sparsity": 0.05, "final_sparsity": 0.9, "weights": LAYERS},
    ),
    "channels": (
        "channels of smallest L1 norm, gradually to 40 %",
        "pruner",
        {
            "class": "L1RankedStructureParameterPruner_AGP",
            "initial_sparsity": 0.05,
            "final_sparsity": 0.4,
            "group_type": "Coupled",
            "weights": LAYERS,
        },
    ),
    "gates": (
        "L0 gates, half of the parameters",
        "regularizer",
        {"class": "L0Regularizer", "weights": LAYERS, "target_sparsity": 0.5, "droprate_init": 0.05},
    ),
}


def schedule(row: str, epochs: int) -> dict[str, Any]:
    """Return the schedule of a row."""
    _, kind, instance = ROWS[row]
    start, end = max(1, epochs // 10), max(2, epochs * 7 // 10)
    content: dict[str, Any] = {
        "lr_schedulers": {"cosine": {"class": "CosineAnnealingLR", "T_max": epochs}},
        "policies": [{"lr_scheduler": {"instance_name": "cosine"}, "starting_epoch": 0, "ending_epoch": epochs}],
    }
    if kind:
        content[f"{kind}s"] = {row: instance}
        policy = {kind: {"instance_name": row}, "starting_epoch": start, "ending_epoch": end}
        content["policies"].append(policy)
    return content


def start(row: str, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start the run of a row; its output goes to `output.txt`."""
    folder = options.out.resolve() / row
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schedule.yaml").write_text(yaml.safe_dump(schedule(row, options.epochs), sort_keys=False))
    command = [
        *(sys.executable, "-m", "compress_classifier", "--arch", "resnet20_cifar", "--dataset", "cifar10"),
        *("--data", str(options.data), "--vs", "0.1", "--compress", str(folder / "schedule.yaml"), "-o", str(folder)),
        *("--lr", "0.1", "--wd", "5e-4", "-b", "128", "--epochs", str(options.epochs), "--device", options.device),
        *("--seed", str(options.seed), *options.more),
    ]
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def cells(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Yield what the finished rows show."""
    for row, (what, _, _) in ROWS.items():
        summary = options.out / row / "latest" / "summary.json"
        if not summary.exists():
            continue
        found = json.loads(summary.read_text())
        masked, thin = found["masked"], found["thinned"]
        yield {
            "row": what,
            "test %": f"{thin['top1']:.2f}",
            "zero or gone": f"{(found['gone'] + found['zeros'] * (1 - found['gone'] / 100)) / 100:.3f}",
            "parameters": f"{thin['parameters']:,}",
            "MACs (M)": f"{thin['macs'] / 1e6:.1f}",
            "masked test %": f"{masked['top1']:.2f}",
        }


def main() -> int:
    """Run the rows that are missing, some at once, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("runs/resnet20_cifar10"))
    parser.add_argument("--only", action="append", choices=list(ROWS), help="row (repeatable)")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", type=int, default=1, help="rows that run side by side")
    parser.add_argument("--seed", type=int, default=0)
    options, options.more = parser.parse_known_args()
    waiting = [row for row in options.only or ROWS if not (options.out / row / "latest" / "summary.json").exists()]
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed = []
    while waiting or running:
        while waiting and len(running) < options.at_once:
            row = waiting.pop(0)
            running[row] = start(row, options)
        for row in [row for row, process in running.items() if process.poll() is not None]:
            if running.pop(row).returncode:
                failed.append(row)
        time.sleep(0.2)
    hardware = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(f"{options.epochs} epochs, seed {options.seed}, {hardware}, torch {torch.__version__}\n")
    print(tabulate(list(cells(options)), "keys", "github", disable_numparse=True))
    for row in failed:
        print(f"{row} failed: see {options.out / row / 'output.txt'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
