"""What the scheduler costs: a training step with AGP, L1 and group lasso together against the plain step.

Both kinds of step alternate in one process, on twins of one model with the same batch; the ratio is the median over
pairs. The last line is the ratio of `resnet20_cifar` at batch 8 on one thread.

    python benchmarks/scheduler_overhead.py [--pairs 300] [--threads 1]
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, PruningPolicy, RegularizationPolicy, Window
from potstill.compression.pruners import AutomatedGradualPruner
from potstill.compression.regularizers import GroupLassoRegularizer, L1Regularizer
from potstill.models import create_model

CASES = [
    ("simplenet_cifar", 8),
    ("simplenet_cifar", 128),
    ("resnet20_cifar", 128),
    ("resnet20_cifar", 8),
]  # the last is the one to report


def plain_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """A training step without a scheduler."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def scheduled_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """The same step with AGP and L1 on all convolutions and Linear layers, and group lasso on all filters."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    scheduler = CompressionScheduler(model, x[:1])
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    filters = [name for name, parameter in model.named_parameters() if parameter.dim() == 4]
    lasso = GroupLassoRegularizer(dict.fromkeys(filters, (1e-5, "Filters")))
    forever = Window.between(0, 1000)
    scheduler.add_policy(PruningPolicy(AutomatedGradualPruner(0.1, 0.8, names)), forever)
    scheduler.add_policy(RegularizationPolicy(L1Regularizer(dict.fromkeys(names, 1e-5))), forever)
    scheduler.add_policy(RegularizationPolicy(lasso), forever)
    scheduler.on_epoch_begin(500, optimizer, 10**9)
    minibatch = iter(range(10**9))

    def step() -> None:
        at = (500, next(minibatch), 10**9)
        scheduler.on_minibatch_begin(*at, optimizer)
        loss = scheduler.before_backward_pass(*at, F.cross_entropy(model(x), y), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(*at, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(*at, optimizer)

    return step


def ratio(name: str, batch: int, pairs: int) -> tuple[float, float]:
    """The median ratio over pairs of steps, and the median milliseconds of a plain step."""
    torch.manual_seed(0)
    model = create_model(name)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    steps = [plain_step(copy.deepcopy(model), x, y), scheduled_step(model, x, y)]
    for step in steps * 3:
        step()
    ratios, plain = [], []
    for pair in range(pairs):
        seconds = [0.0, 0.0]
        for kind in (pair % 2, 1 - pair % 2):
            start = time.perf_counter()
            steps[kind]()
            seconds[kind] = time.perf_counter() - start
        ratios.append(seconds[1] / seconds[0])
        plain.append(seconds[0])
    return statistics.median(ratios), statistics.median(plain) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300, help="pairs of steps at batch 8; a tenth of them at 128")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gc.disable()
    value = 0.0
    for name, batch in CASES:
        value, plain = ratio(name, batch, options.pairs if batch == CASES[-1][1] else max(5, options.pairs // 10))
        print(f"{name:16} batch {batch:3}: plain step {plain:7.2f} ms, ratio {value:.3f}")
    print(f"ratio: {value:.2f}")


if __name__ == "__main__":
    main()
