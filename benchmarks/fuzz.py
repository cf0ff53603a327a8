"""The long form of the fuzz tests: mutants of every kind of file, and command lines on folders that a stranger made.

    python benchmarks/fuzz.py                          # 10,000 mutants a reader, 1,000 command lines: about two hours
    python benchmarks/fuzz.py --mutants 2000 --lines 200 --seed 7
    python benchmarks/fuzz.py --only schedules         # one of the rows

Each row is a test of tests/durability in a process of its own, at low priority: mutants, seconds, the peak of resident
memory, and whether all held: no traceback, no hang, nothing outside changed. Mutants of checkpoints that are resumed
are runs, and a fifth as many.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READERS = {
    "checkpoints, bytes": "test_fuzz_files.py::test_bytes_of_checkpoints",
    "checkpoints, fields (runs)": "test_fuzz_fields.py",
    "checkpoints of Distiller": "test_fuzz_files.py::test_bytes_of_distillers_checkpoints",
    "recipes": "test_fuzz_files.py::test_recipes",
    "thinned networks": "test_fuzz_files.py::test_thinned_networks_on_disk",
    "schedules": "test_fuzz_schedules.py",
    "states of schedulers and plugins": "test_refused_states.py",
    "greedy.json": "test_fuzz_folders.py::test_records_of_greedy_runs",
    "sensitivity.csv, sensitivity.json": "test_fuzz_folders.py::test_tables_of_sensitivities",
    "MNIST's files": "test_fuzz_folders.py::test_files_of_mnist",
    "images": "test_fuzz_folders.py::test_images",
    "summaries, metrics": "test_fuzz_folders.py::test_summaries_and_metrics",
    "table of latencies": "test_fuzz_folders.py::test_tables_of_latencies",
    "packed networks": "test_fuzz_files.py::test_packed_networks",
    "command lines": "test_fuzz_commands.py",
}
COMMAND_LINES = 10
"""One in so many mutants is a command line."""


def pytest_of(test: str, mutants: int, seed: int) -> list[str]:
    """Return the command of a test's long form."""
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "-o", "addopts="]
    asked = ["--import-mode=importlib", "--mutations", str(mutants), "--fuzz-seed", str(seed)]
    return [sys.executable, "-m", "pytest", *options, *asked, f"tests/durability/{test}"]


def run(name: str, mutants: int, seed: int) -> bool:
    """Run a test, print its row, and what it said where something did not hold."""
    began = time.monotonic()
    process = subprocess.Popen(
        pytest_of(READERS[name], mutants, seed), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    held = os.waitstatus_to_exitcode(status) == 0
    process.returncode = 0
    count = mutants // COMMAND_LINES if name == "command lines" else mutants
    row = [name, f"{count:,}", f"{time.monotonic() - began:.0f} s", f"{usage.ru_maxrss // 1024} MiB"]
    print("| " + " | ".join([*row, "all held" if held else "FAILED"]) + " |", flush=True)
    if not held:
        print(said[-6000:], flush=True)
    return held


def main() -> int:
    """Run all, or one; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000, help="of each kind of file")
    parser.add_argument("--lines", type=int, default=1000, help="command lines")
    parser.add_argument("--seed", type=int, default=0, help="gives others")
    parser.add_argument("--only", choices=READERS, help="one of the rows")
    options = parser.parse_args()
    os.nice(10)
    print("| reader | mutants | time | peak | result |\n|---|---|---|---|---|", flush=True)
    chosen = [options.only] if options.only else list(READERS)
    counts = dict.fromkeys(chosen, options.mutants) | {"command lines": options.lines * COMMAND_LINES}
    return sum(not run(name, counts[name], options.seed) for name in chosen)


if __name__ == "__main__":
    sys.exit(main())
