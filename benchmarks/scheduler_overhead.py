"""What the scheduler costs: a training step with AGP, L1 and group lasso together against the plain step.

The kinds of step alternate in one process, on twins of one model with the same batch; ratios are medians over rounds,
of processor time where one thread computes (other programs disturb it less), else of the clock's. "By hand" is the same
arithmetic written out in the loop, without a scheduler: masks of gradients and weights, and both penalties with their
gradients, each with its strength, those of filters that are wholly zero included. Left out is what this one loop does
not need: its penalties know of no loss scaling, of no accumulated gradients, and masks stay as they are. The last line
is the scheduler's ratio for `resnet20_cifar` at batch 8 on one thread.

    python benchmarks/scheduler_overhead.py [--rounds 300] [--threads 1] [--device cuda]
"""

from __future__ import annotations

import argparse
import copy
import gc
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, PruningPolicy, RegularizationPolicy, Window
from potstill.compression.pruners import AutomatedGradualPruner
from potstill.compression.regularizers import GroupLassoRegularizer, L1Regularizer
from potstill.models import create_model

L1, LASSO = 1e-5, 2e-5
"""The strengths."""
TINY = torch.finfo(torch.float32).tiny
CASES = [
    ("simplenet_cifar", 8),
    ("simplenet_cifar", 128),
    ("resnet20_cifar", 128),
    ("resnet20_cifar", 8),
]  # the last is the one to report


def plain_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return a training step without a scheduler."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def scheduled_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return the same step with AGP and L1 on all convolutions and Linear layers, and group lasso on all filters."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    scheduler = CompressionScheduler(model, x[:1])
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    filters = [name for name, parameter in model.named_parameters() if parameter.dim() == 4]
    lasso = GroupLassoRegularizer(dict.fromkeys(filters, (LASSO, "Filters")))
    forever = Window.between(0, 1000)
    scheduler.add_policy(PruningPolicy(AutomatedGradualPruner(0.1, 0.8, names)), forever)
    scheduler.add_policy(RegularizationPolicy(L1Regularizer(dict.fromkeys(names, L1))), forever)
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


def handmade_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Return a step with the arithmetic of `scheduled_step` and fixed masks, in as few operations as torch allows."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    filters = [weight for weight in weights if weight.dim() == 4]
    masks = [(weight.detach().abs() > weight.detach().abs().median()).to(weight) for weight in weights]

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        with torch.no_grad():
            vector = _flatten_dense_tensors(weights)
            signs = vector.sign()
            norms = [torch.linalg.vector_norm(weight, 2, (1, 2, 3), keepdim=True) for weight in filters]
            penalty = torch.add(vector.dot(signs) * L1, _flatten_dense_tensors(norms).sum(), alpha=LASSO)
        loss = loss + penalty
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            torch._foreach_add_([w.grad for w in weights], _unflatten_dense_tensors(signs, weights), alpha=L1)
            torch._foreach_clamp_min_(norms, TINY)  # 0 / 0 would make a filter that is zero not a number for good
            torch._foreach_add_([w.grad for w in filters], torch._foreach_div(filters, norms), alpha=LASSO)
            torch._foreach_mul_([w.grad for w in weights], masks)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(weights, masks)

    return step


def ratios(name: str, batch: int, rounds: int, device: torch.device) -> tuple[float, float, float]:
    """Return the median ratios of the scheduled and the handmade step, and the median milliseconds of a plain one."""
    torch.manual_seed(0)
    model = create_model(name).to(device)
    x, y = torch.randn(batch, 3, 32, 32).to(device), torch.randint(10, (batch,)).to(device)
    wait = torch.cuda.synchronize if device.type == "cuda" else int
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    kinds = (plain_step, handmade_step, scheduled_step)
    steps = [make(copy.deepcopy(model), x, y) for make in kinds]
    for step in steps * 3:
        step()
    seconds = []
    for _ in range(rounds):
        took = [0.0] * len(steps)
        for kind in random.sample(range(len(steps)), len(steps)):  # each finds the caches of the one before
            wait()
            start = clock()
            steps[kind]()
            wait()
            took[kind] = clock() - start
        seconds.append(took)
    by_hand, scheduled = (statistics.median(took[kind] / took[0] for took in seconds) for kind in (1, 2))
    return scheduled, by_hand, statistics.median(took[0] for took in seconds) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300, help="rounds of steps at batch 8; a tenth of them at 128")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gc.disable()
    value = 0.0
    for name, batch in CASES:
        rounds = options.rounds if batch == CASES[-1][1] else max(5, options.rounds // 10)
        value, by_hand, plain = ratios(name, batch, rounds, options.device)
        print(f"{name:16} batch {batch:3}: plain step {plain:7.2f} ms, ratio {value:.3f}, by hand {by_hand:.3f}")
    print(f"ratio: {value:.2f}")


if __name__ == "__main__":
    main()
