"""Runs the shipped schedules by the commands of their headers; writes what they gave into headers and index.

    python benchmarks/schedules.py                       # runs what is missing or has changed since it ran
    python benchmarks/schedules.py agp l0_macs --write   # these, then their headers and schedules/README.md
    python benchmarks/schedules.py --index               # schedules/README.md alone, from the headers

Runs lie in `OUT/runs/<name>`; what is there is not run again (after a change of the code, delete it), what was cut off
goes on. Only schedules whose data everybody has (`--dataset digits`) are run. A header has, in this order: method,
`Paper:`, reasons, the schedule's own command, that of the dense network, `Baseline:`, `Result:` and the final sparsity
table; what begins with `Baseline:` is written here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from schedule_headers import INDEX, ROOT, Shipped, final_table, index, shipped


def run(schedule: Shipped, out: Path) -> Path:
    """Return the finished run of a schedule: the one that is there, a new one, or the rest of one that was cut off."""
    base = schedule.dense
    if base != schedule:
        run(base, out)
    folder = out / "runs" / schedule.path.stem
    what = "\n".join(recipe(each) for each in dict.fromkeys((base, schedule)))
    known = folder / "recipe.txt"
    folder.mkdir(parents=True, exist_ok=True)
    goes_on = known.exists() and known.read_text() == what and (folder / "latest" / "checkpoint.pt").exists()
    if goes_on and (folder / "latest" / "summary.json").exists():
        return folder / "latest"
    if not goes_on:
        (folder / "latest").unlink(missing_ok=True)
    known.write_text(what)
    arguments = ["--resume-from", str(folder / "latest")] if goes_on else [*own(schedule), "-o", str(folder)]
    print(schedule.name, shlex.join(arguments), flush=True)
    with (folder / "output.txt").open("a") as output:
        status = subprocess.run(
            [sys.executable, str(ROOT / "compress_classifier.py"), *arguments],
            cwd=out, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=output, stderr=output, check=False,
        ).returncode  # fmt: skip
    if status:
        sys.exit(f"{schedule.name} ended with status {status}: see {folder / 'output.txt'}")
    return folder / "latest"


def own(schedule: Shipped) -> list[str]:
    """Return the schedule's own command, with the full path of its file."""
    arguments = list(schedule.commands[0])
    arguments[arguments.index("--compress") + 1] = str(schedule.path)
    return arguments


def recipe(schedule: Shipped) -> str:
    """Return what decides over the result of a run: the command and the content of the schedule."""
    return shlex.join(own(schedule)) + "\n" + json.dumps(yaml.safe_load(schedule.path.read_text()))


def write_header(schedule: Shipped, out: Path) -> None:
    """Fill the header from the finished runs, from `Baseline:` on."""
    latest = out / "runs" / schedule.path.stem / "latest"
    summary, before = (summary_of(each, out) for each in (schedule, schedule.dense))
    machine = json.loads((latest / "environment.json").read_text())
    dense = schedule == schedule.dense
    first = "none, this is one." if dense else f"{_figures(before['thinned'])}."
    lines = [
        f"Baseline: {first}",
        f"Result:   {result(summary)}.",
        f"Measured: once, seed 0, torch {machine['torch'].partition('+')[0]}, one thread of a CPU.",
        *([] if dense else final_table((latest / "run.log").read_text())),
    ]
    text = schedule.path.read_text()
    start, rest = re.search(r"^# Baseline:", text, re.MULTILINE), re.search(r"^(?!#)", text, re.MULTILINE)
    if start is None or rest is None:
        sys.exit(f"{schedule.path}: its header has no line that begins with Baseline:")
    block = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    schedule.path.write_text(text[: start.start()] + block + text[rest.start() :])


def summary_of(schedule: Shipped, out: Path) -> dict[str, Any]:
    """Return the summary of a schedule's finished run."""
    return json.loads((out / "runs" / schedule.path.stem / "latest" / "summary.json").read_text())


def result(summary: dict[str, Any]) -> str:
    """Return what came out, as `figures` reads it."""
    return f"{_figures(summary['thinned'])}, sparsity {sparsity(summary):.2f} %"


def sparsity(summary: dict[str, Any]) -> float:
    """Return the share of the dense network's parameters that are gone, or zeros that stay, in percent."""
    return summary["gone"] + summary["zeros"] * (1 - summary["gone"] / 100)


def _figures(network: dict[str, Any]) -> str:
    return f"{network['top1']:.2f} % test accuracy, {network['parameters']:,} parameters, {network['macs']:,} MACs"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="schedules, by path in schedules/ or by file name (default: all)")
    parser.add_argument("--write", action="store_true", help="write the results into headers and index")
    parser.add_argument("--index", action="store_true", help="run nothing: write the index from the headers")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for runs/ (default: here)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for; print and write what came out."""
    options = parse(arguments)
    runnable = [schedule for schedule in shipped() if schedule.runs_everywhere]
    unknown = [name for name in options.names if not any(name in (s.name, s.path.stem) for s in runnable)]
    if unknown:
        sys.exit(f"no such schedule to run here: {', '.join(unknown)}")
    wanted = [s for s in runnable if not options.names or {s.name, s.path.stem} & set(options.names)]
    for schedule in [] if options.index else wanted:
        run(schedule, options.out.resolve())
        print(f"{schedule.name}: {result(summary_of(schedule, options.out.resolve()))}", flush=True)
        if options.write:
            write_header(schedule, options.out.resolve())
    if options.write or options.index:
        INDEX.write_text(index(shipped()))


if __name__ == "__main__":
    main()
