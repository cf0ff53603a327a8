"""What one threshold over a large network costs: time against `torch.kthvalue`, and extra memory.

Finds the threshold that 80 % of the absolute values lie below, as `GlobalMagnitudePruner` does, and zeroes them in
place (`zero_smallest`). `torch.kthvalue` gets the absolute values ready in one tensor, which its time does not include.
Extra memory is the growth of the process's peak, measured in a process of its own for each method. The last line is
time of the threshold / time of `torch.kthvalue`, and extra memory in percent of the weights.

    python benchmarks/global_pruning.py [--millions 100] [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from potstill.compression.parts.kth_smallest import kth_smallest
from potstill.compression.pruners.global_magnitude import zero_smallest

PARTS = 50
METHODS = ("kthvalue", "threshold", "in place")


def measure(method: str, millions: int, threads: int) -> tuple[float, float]:
    """Return seconds (the best of three) and extra megabytes of a method, here."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    weights = [torch.randn(millions * 1_000_000 // PARTS) * 0.02 for _ in range(PARTS)]
    number = int(0.8 * sum(weight.numel() for weight in weights))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    flat = torch.cat([weight.abs() for weight in weights]) if method == "kthvalue" else None
    for _ in range(3):
        start = time.perf_counter()
        if flat is not None:
            flat.kthvalue(number)
        elif method == "threshold":
            kth_smallest(weights, number)
        else:
            zero_smallest(weights, number)
        seconds.append(time.perf_counter() - start)
    return min(seconds), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=100, help="weights, in millions of float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(*measure(options.only, options.millions, options.threads))
        return
    found = {}
    for method in METHODS:
        size = ["--millions", str(options.millions), "--threads", str(options.threads)]
        command = [sys.executable, __file__, "--only", method, *size]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        found[method] = seconds, extra = tuple(map(float, output.stdout.split()))
        share = extra / (4 * options.millions)
        print(f"{method:10} {seconds:6.2f} s, {extra:6.0f} MB extra ({share:6.1%} of the weights)")
    share = max(found["threshold"][1], found["in place"][1]) / (4 * options.millions)
    print(f"ratio: {found['threshold'][0] / found['kthvalue'][0]:.2f}, memory: {share:.1%}")


if __name__ == "__main__":
    main()
