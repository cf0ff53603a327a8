"""Does a teacher help? A small network on few labelled images, with and without the answers of a large one.

The teacher is trained once, on all training images. Each student is trained twice from the same random start, on the
same few images, for as many steps, in the same order: once on the labels alone, once with the teacher. Seeds are
0, 1, 2, ...: they choose the images too. All are runs of the command line in `OUT`; what is there is not run again.

    OMP_NUM_THREADS=1 python benchmarks/distillation.py --amp
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
import yaml
from tabulate import tabulate

import compress_classifier


def cosine(epochs: int) -> str:
    """Return a schedule that lets the learning rate fall along a cosine to nearly 0."""
    window = {"starting_epoch": 0, "ending_epoch": epochs}
    return yaml.safe_dump(
        {
            "lr_schedulers": {"cosine": {"class": "CosineAnnealingLR", "T_max": epochs}},
            "policies": [{"lr_scheduler": {"instance_name": "cosine"}, **window}],
        }
    )


def train(folder: Path, arguments: Sequence[object], epochs: int) -> float:
    """Test accuracy of a run of the command line in a folder, unless it was made before."""
    summary = folder / "latest" / "summary.json"
    if not summary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cosine.yaml").write_text(cosine(epochs))
        always = ["--optimizer", "adam", "--epochs", epochs, "--compress", folder / "cosine.yaml", "-o", folder]
        line = [str(argument) for argument in (*arguments, *always)]
        with (folder / "output.txt").open("w") as output, contextlib.redirect_stdout(output):
            compress_classifier.main(line)
    return float(json.loads(summary.read_text())["thinned"]["top1"])


def student(options: argparse.Namespace, seed: int, lessons: Sequence[object]) -> float:
    """Test accuracy of a student; `lessons` are the options of distillation, none without a teacher."""
    name = f"{options.student}_{options.images}_{options.epochs}_{options.lr:g}"
    taught = f"with_{options.temperature:g}_{options.distill_weight:g}" if lessons else "without"
    arguments = [
        *("-a", options.student, "--limit-train", options.images, "-b", options.batch_size, "--lr", options.lr),
        *("--seed", seed, *data(options), *lessons),
    ]
    return train(options.out / name / taught / str(seed), arguments, options.epochs)


def data(options: argparse.Namespace) -> list[object]:
    """Return the data set, and half precision where it is asked for."""
    folder = ["--data", options.data] if options.data else []
    return ["--dataset", options.dataset, *folder, *(["--amp"] if options.amp else [])]


def interval(differences: Sequence[float]) -> float:
    """Return half the width of a 95 % interval of the mean (Student's t, by scipy, which scikit-learn brings)."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(differences) - 1)) * stdev(differences) / math.sqrt(len(differences))


def report(options: argparse.Namespace, teacher: float, alone: list[float], taught: list[float]) -> str:
    """Return the table, and what the pairs say."""
    gains = [b - a for a, b in zip(alone, taught, strict=True)]
    rows = [
        [seed, f"{a:.2f}", f"{b:.2f}", f"{gain:+.2f}"]
        for seed, (a, b, gain) in enumerate(zip(alone, taught, gains, strict=True))
    ]
    columns = (alone, taught, gains)
    rows.append(["mean", *(f"{mean(column):{'+' if column is gains else ''}.2f}" for column in columns)])
    rows.append(["standard deviation", *(f"{stdev(column):.2f}" for column in columns)])
    better = sum(gain > 0 for gain in gains)
    names = ["seed", "labels alone %", "with the teacher %", "difference"]
    return "\n".join(
        [
            f"teacher {options.teacher}: {teacher:.2f} % on the test images of {options.dataset}",
            f"student {options.student}: {options.images} labelled images, {options.epochs} epochs, "
            f"temperature {options.temperature:g}, distill weight {options.distill_weight:g}",
            "",
            tabulate(rows, names, "github", disable_numparse=True),
            "",
            f"paired difference {mean(gains):+.2f} points, 95 % interval +-{interval(gains):.2f}; "
            f"better with the teacher in {better} of {len(gains)} pairs",
            f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}",
        ]
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, help="its folder, where it has one")
    parser.add_argument("--teacher", default="googlenet_cifar", help="(default: %(default)s)")
    parser.add_argument("--teacher-epochs", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--teacher-images", type=int, help="(default: all)")
    parser.add_argument("--student", default="simplenet_cifar", help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=100, help="labelled images of a student (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="of a student (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--lr", type=float, default=0.005, help="of Adam, at first (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=4.0, help="(default: %(default)s)")
    parser.add_argument("--distill-weight", type=float, default=0.9, help="1 - student weight (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="number of pairs (default: %(default)s)")
    parser.add_argument("--amp", action="store_true", help="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"), help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("--seeds: a spread needs two or more")
    options.out = (options.out / options.dataset).resolve()
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    options = parse(arguments)
    folder = options.out / f"{options.teacher}_{options.teacher_epochs}"
    limit = ["--limit-train", options.teacher_images] if options.teacher_images else []
    teacher = train(folder, ["-a", options.teacher, *data(options), *limit], options.teacher_epochs)
    lessons = [
        *("--kd-teacher", options.teacher, "--kd-resume", folder / "latest", "--kd-temp", options.temperature),
        *("--kd-distill-wt", options.distill_weight, "--kd-student-wt", round(1 - options.distill_weight, 9)),
    ]
    alone, taught = [], []
    for seed in range(options.seeds):
        alone.append(student(options, seed, []))
        taught.append(student(options, seed, lessons))
    print(report(options, teacher, alone, taught))


if __name__ == "__main__":
    main()
