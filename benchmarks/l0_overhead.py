"""What L0 gates cost: a training step of GoogLeNet for CIFAR with gates and without, taken in turn, in one process.

    python benchmarks/l0_overhead.py                    # one CPU thread, batches of 8, 32 and 128
    python benchmarks/l0_overhead.py --device cuda      # batch 128, mixed precision

For each batch size, pairs of steps (plain, gated; then gated, plain) are timed, and the ratio is the pairs' median. The
clock on the CPU is the process's own time, which other processes disturb little; on a GPU it is the wall's, after the
device is done. The gated step is all of a step: hooks of the scheduler, draw, penalty, the gates' Adam.
The last line is the worst ratio over the batch sizes with one draw per minibatch: `ratio: 1.03`.
"""

from __future__ import annotations

import argparse
import ctypes.util
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, RegularizationPolicy
from potstill.compression.regularizers import L0Regularizer
from potstill.models import create_model

PAIRS = {2: 120, 8: 100, 32: 50, 128: 25}
WARM_UP = 3
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
EPOCH = 10**9  # minibatches: the window does not end while we measure
WEIGHTS = ["inception_blocks.*conv.weight", "stem.conv.weight"]
Step = Callable[[], None]


def network(device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the network and the published recipe's optimizer."""
    torch.manual_seed(0)
    model = create_model("googlenet_cifar", 10, 3).to(device, memory_format=torch.channels_last)
    return model, torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)


def batch(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images and labels."""
    images = torch.randn(size, 3, 32, 32).to(device, memory_format=torch.channels_last)
    return images, torch.randint(10, (size,)).to(device)


def plain_step(size: int, device: torch.device) -> Step:
    """Return a training step without gates."""
    (model, optimizer), (images, labels) = network(device), batch(size, device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def gated_step(size: int, device: torch.device, sampling: str, target: bool) -> Step:
    """Return a training step with a gate on each channel, and all that the scheduler does for it."""
    (model, optimizer), (images, labels) = network(device), batch(size, device)
    scheduler = CompressionScheduler(model, images[:2])
    aim = {"target_sparsity": 0.5} if target else {"strength": 1.0}
    gates = L0Regularizer(WEIGHTS, droprate_init=0.05, sampling=sampling, **aim)  # type: ignore[arg-type]
    scheduler.add_policy(RegularizationPolicy(gates), epochs=[0])
    scheduler.on_epoch_begin(0, optimizer, EPOCH)

    def step() -> None:
        scheduler.on_minibatch_begin(0, 0, EPOCH, optimizer)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(model(images), labels)
        loss = scheduler.before_backward_pass(0, 0, EPOCH, loss, optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(0, 0, EPOCH, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, 0, EPOCH, optimizer)

    return step


def seconds(step: Step, device: torch.device) -> float:
    """Return how long a step takes."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def compare(plain: Step, gated: Step, pairs: int, device: torch.device) -> tuple[float, float, float]:
    """Return the median seconds of both and the median ratio of a pair; the order within changes from pair to pair."""
    times: tuple[list[float], list[float]] = [], []
    for pair in range(-WARM_UP, pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            taken = seconds((plain, gated)[which], device)
            if pair >= 0:
                times[which].append(taken)
    return median(times[0]), median(times[1]), median(b / a for a, b in zip(*times, strict=True))


def keep_memory() -> None:
    """Let glibc keep freed memory: page faults after giving it back cost up to a tenth of a step, plain or gated."""
    library = ctypes.util.find_library("c")
    if sys.platform == "linux" and library:
        mallopt = ctypes.CDLL(library).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def main(arguments: Sequence[str] | None = None) -> float:
    """Measure, print a table, return the worst ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--batch", type=int, action="append", help="batch size (repeatable; default 8, 32, 128)")
    parser.add_argument("--pairs", type=int, help="pairs of steps a batch size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", action="store_true", help="a target of sparsity in place of a strength")
    parser.add_argument("--examples", action="store_true", help="measure one draw for each example as well")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_memory()
    worst = 0.0
    print("| batch | sampling | plain ms | gated ms | ratio |")
    print("|---|---|---|---|---|")
    for size in options.batch or ([128] if options.device.type == "cuda" else [8, 32, 128]):
        for sampling in ["minibatch", "example"] if options.examples else ["minibatch"]:
            plain = plain_step(size, options.device)
            gated = gated_step(size, options.device, sampling, options.target)
            one, two, ratio = compare(plain, gated, options.pairs or PAIRS.get(size, 20), options.device)
            print(f"| {size} | {sampling} | {1000 * one:.2f} | {1000 * two:.2f} | {ratio:.3f} |", flush=True)
            if sampling == "minibatch":
                worst = max(worst, ratio)
    print(f"ratio: {worst:.3f}")
    return worst


if __name__ == "__main__":
    main()
