"""The table of GoogLeNet on CIFAR-10 with L0 gates, row by row; it stops and goes on.

    python benchmarks/l0_googlenet.py --data CIFAR10                        # train the rows that are missing
    python benchmarks/l0_googlenet.py --data CIFAR10 --only target_0.64     # and what it starts from
    python benchmarks/l0_googlenet.py --data CIFAR10 --verify               # test the networks of the table
    python benchmarks/l0_googlenet.py --publish                             # the page and the picture anew
    python benchmarks/l0_googlenet.py --data CIFAR10 --protocol gpu --jobs 4

CIFAR10 is a folder with train/<class>/* and test/<class>/*. Each row is one or two runs of the command line in
`OUT/<protocol>`; one that was cut off goes on with its checkpoint. What a finished row leaves goes to
`benchmarks/results/l0_googlenet/<protocol>`, with `results.json` over all, and is not run again. All choices were made
on the validation images; the test images are read once, at the end of a run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from googlenet_table import results
from googlenet_table.rows import BATCH, HELD_OUT, IMAGES, NETWORK, PROTOCOLS, Phase, Row, phases, rows

from potstill.command.run.model_and_data import find_device, slow_in_bfloat16

HERE = Path(__file__).resolve().parent
KEPT = HERE / "results" / "l0_googlenet"
PAGE = HERE.parent / "docs" / "results" / "l0_googlenet.md"
PICTURE = HERE.parent / "docs" / "pictures" / "l0_googlenet"
MARK = "<!-- made by benchmarks/l0_googlenet.py --publish -->"
SETTINGS = ["--optimizer", "sgd", "--wd", "5e-4", "-b", BATCH, "--vs", "0.1", "--augmentation", "crop_flip"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, or check or show what is there."""
    options = parse(arguments)
    if options.verify:
        print(results.verify(options.kept, options.data))
        return
    if not options.publish:
        chosen = [row for row in rows(options.rows) if not options.only or row.name in options.only]
        for stage in stages(chosen):
            with ThreadPoolExecutor(options.jobs) as pool:
                list(pool.map(lambda row: run_row(row, options), stage))
    publish(options)


def stages(chosen: list[Row]) -> list[list[Row]]:
    """Return rows in groups: those of a group need nothing but rows of the groups before it."""
    depth = {"dense": 0, "target": 1, "strength": 1, "longer": 1}
    return [[row for row in chosen if depth.get(row.kind, 2) == level] for level in range(3)]


def run_row(row: Row, options: argparse.Namespace) -> None:
    """Run a row, unless it is there; its output goes to a file beside its folder."""
    place = options.kept / row.name
    if (place / "summary.json").exists():
        return
    for before in [Row("dense", seed=row.seed)] * (row.kind not in ("dense", "scratch")) + [row.like] * bool(row.like):
        run_row(before, options)
    runs = phases(
        row, options.rows, lambda row: results.sparsity(options.kept / row.name), lambda row: files(row, options)
    )
    for phase in runs:
        run_phase(phase, row, options)
    results.keep(options.folder / row.name / "latest", place, row)
    results.collect(options.kept, options.rows)


def files(row: Row, options: argparse.Namespace) -> Path:
    """Return the thinned network of a finished row."""
    return options.kept / row.name / "thinned.safetensors"


def run_phase(phase: Phase, row: Row, options: argparse.Namespace) -> None:
    """Run the command line for one part of a row, or let it go on."""
    folder = options.folder / phase.folder
    if (folder / "latest" / "summary.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "compress_classifier", *map(str, asked(phase, row, options))]
    print(" ".join(command), flush=True)
    with (options.folder / f"{phase.folder}.txt").open("a") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        sys.exit(f"{row.name} ended with status {status}: see {output.name}; run this again to go on")


def asked(phase: Phase, row: Row, options: argparse.Namespace) -> list[object]:
    """Return the options of a run."""
    folder = options.folder / phase.folder
    images = ["--dataset", "imagefolder", "--data", options.data, "--device", options.device]
    plugin = folder / "network.py"
    if phase.plugin:
        plugin.write_text(phase.plugin)
    network = ["--plugin", plugin] if phase.plugin else []
    if (folder / "latest" / "checkpoint.pt").exists():
        return ["--resume-from", (folder / "latest").resolve(), *network, *images]
    path = folder / "schedule.yaml"
    path.write_text(yaml.safe_dump(phase.schedule, sort_keys=False))
    rate = phase.schedule["lr_schedulers"]["cycle"]
    start = ["--exp-load-weights-from", first_weights(phase.start, options)] if phase.start else []
    start += [] if slow_in_bfloat16(find_device(options.device)) else ["--amp"]
    return [
        *("--arch", NETWORK if phase.plugin else "googlenet_cifar", "--input-size", phase.side, *network, *images),
        *("--mean", ",".join(map(str, results.MEAN)), "--std", ",".join(map(str, results.STD)), *SETTINGS),
        *("--limit-train", options.train or IMAGES, "--limit-validation", min(options.train or HELD_OUT, HELD_OUT)),
        *("--lr", rate["max_lr"] / rate["div_factor"], "--epochs", phase.epochs, "--seed", row.seed),
        *("--checkpoint-every", "5m", "--compress", path, "-o", folder, *start),
    ]


def first_weights(name: str, options: argparse.Namespace) -> Path:
    """Return the checkpoint that a run starts from: this machine's, or the one that was kept."""
    own = options.folder / name / "latest" / "checkpoint.pt"
    return own if own.exists() else options.kept / name / "checkpoint.pt"


def publish(options: argparse.Namespace) -> None:
    """Print the table; with `--publish` put it into the page and draw the picture."""
    found = results.collect(options.kept, options.rows) if options.kept.exists() else []
    print(results.table(found))
    if options.publish:
        before, _, rest = PAGE.read_text().partition(f"{MARK}\n")
        after = rest.partition(f"{MARK}\n")[2]
        PAGE.write_text(f"{before}{MARK}\n{results.table(found)}\n{MARK}\n{after}")
        results.draw(found, PICTURE)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, with what follows from them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="cpu")
    parser.add_argument("--only", action="append", help="a row, by its name (repeatable)")
    parser.add_argument("--out", type=Path, default=Path("runs/l0_googlenet"))
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of finished rows (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="rows to train side by side")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--train", type=int, help="so many training images: to try the script")
    parser.add_argument("--verify", action="store_true", help="test the networks of the table")
    parser.add_argument("--publish", action="store_true", help="only make the page and the picture anew")
    options = parser.parse_args(arguments)
    options.rows = PROTOCOLS[options.protocol]
    names = [row.name for row in rows(options.rows)]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.data is None and not options.publish:
        parser.error("--data: the folder with the images is needed")
    options.data = options.data and options.data.resolve()
    options.folder = (options.out / options.protocol).resolve()
    options.kept = options.kept.resolve() / options.protocol
    return options


if __name__ == "__main__":
    main()
