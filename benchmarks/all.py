"""All ratios on one page: runs the short form of each benchmark of cost, one after the other.

    python benchmarks/all.py                        # prints the page
    python benchmarks/all.py --write                # and writes docs/performance.md
    python benchmarks/all.py --only "L0 gates"      # one of them

The machine should do nothing else meanwhile; each benchmark takes its alternatives in turn, so that what it does all
the same hits both.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"


@dataclass(frozen=True)
class Part:
    """A benchmark: heading, its command after `python benchmarks/`, what it says, in a sentence."""

    title: str
    command: str
    what: str


PARTS = (
    Part(
        "Scheduler",
        "scheduler_overhead.py --rounds 60",
        "A training step with AGP, L1 and group lasso over the plain one; `by hand`: the same arithmetic in the loop.\n"
        "Processor time on one thread; the ratios of 128 images differ by a tenth from run to run.",
    ),
    Part("L0 gates", "l0_overhead.py", "A training step with gates over the plain one."),
    Part(
        "One threshold over a network",
        "global_pruning.py --millions 20 --threads 1",
        "Seconds and extra memory of `GlobalMagnitudePruner`'s threshold beside `torch.kthvalue`.",
    ),
    Part(
        "Thinning",
        "thinning.py resnet50 googlenet mobilenet_v2",
        "Processor seconds of tracing, planning, applying and proving, the last by two forward passes on two inputs.",
    ),
    Part(
        "Thinning beside Torch-Pruning",
        "thinning_peer.py resnet50 googlenet convnext_tiny mobilenet_v2",
        "Processor seconds of all of `thin` with one image, its proof included, and of Torch-Pruning, which proves\n"
        "nothing; as many channels removed.",
    ),
    Part("Memory of thinning", "thinning_memory.py resnet50", "Memory beside the model, in multiples of its weights."),
    Part(
        "Latency asked and got",
        "latency.py --asked 0.6",
        "Gates with `target_latency: 0.6`: the share of the time that the thinned network takes. GoogLeNet for\n"
        "32x32 images at batch 1 is mostly overhead: with 2 % of its multiply-adds it takes 0.65 of the time.\n"
        "Activations of more than 32 MiB (MobileNetV2 at batch 16) are given back to the system after each layer\n"
        "by glibc's allocator, and the next waits for new pages: with `MALLOC_MMAP_MAX_=0\n"
        "MALLOC_TRIM_THRESHOLD_=17179869184` in the environment the dense network takes 153 instead of 327 ms.",
    ),
    Part(
        "Widths of whole multiples",
        "latency.py --rounding --networks resnet50 --batches 1",
        "Half of the multiply-adds removed, in multiples of 1, 8 and 16 channels, and by Torch-Pruning (`peer`).",
    ),
    Part(
        "Several processes",
        "ranks.py --steps 40",
        "A step of DistributedDataParallel with a scheduler, and what it sends.",
    ),
    Part("Trajectories", "trajectory_overhead.py", "Recording parameters with `--trajectory`, at most."),
)


def output_of(part: Part) -> str:
    """Return what a benchmark prints; of one that fails the last line of its error."""
    done = subprocess.run(
        [sys.executable, *part.command.split()], cwd=HERE, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if not done.returncode else f"failed: {done.stderr.strip().splitlines()[-1]}"


def section(part: Part) -> str:
    """Return a benchmark's part of the page: tables of Markdown as they are, other lines as code."""
    out = output_of(part)
    lines = out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    others = "\n".join(line for line in lines if not line.startswith("|"))
    body = "\n\n".join([*(["\n".join(rows)] if rows else []), *([f"```\n{others}\n```"] if others else [])])
    return f"## {part.title}\n\n{part.what}\n`python benchmarks/{part.command}`\n\n{body}\n"


def page(sections: Sequence[str]) -> str:
    """Return the whole page."""
    threads = torch.get_num_threads()
    told = f"{threads} threads where a benchmark names none, {platform.machine()}"
    head = (
        "# What it costs, and what it gains\n\n"
        "Ratios, each measured with its alternatives in turn by the command beside it;"
        " `python benchmarks/all.py --write`\n"
        f"runs them all and writes this page. torch {torch.__version__}, {told}.\n"
    )
    return "\n".join([head, *sections])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks and show the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[part.title for part in PARTS], help="repeatable")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(HERE.parent)}")
    options = parser.parse_args(arguments)
    sections = []
    for part in PARTS:
        if not options.only or part.title in options.only:
            sections.append(section(part))
            print(sections[-1], flush=True)
    if options.write:
        PAGE.write_text(page(sections))


if __name__ == "__main__":
    main()
