"""Latency: what gates were asked for and what came out, and what widths of whole multiples are worth.

    python benchmarks/latency.py --asked 0.6                        # gates with `target_latency`, at batch 1 and 16
    python benchmarks/latency.py --rounding                         # channels removed at once, in multiples of 1, 8, 16
    python benchmarks/latency.py --asked 0.6 --networks mobilenet_v2 --batches 1

Times are those of the dense and the thinned network in turn: of the dense one the shortest, and `got` is the median of
the ratios of each round. The gates see random images for a few steps: this is about time, not accuracy. With
Torch-Pruning installed, `--rounding` also prunes with it to as many multiply-adds: widths are then its own, and the
ratio shows what they are worth.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from potstill import prune_channels
from potstill.compression import ScheduleError, dict_config
from potstill.compression.latency.measure import milliseconds, resized
from potstill.models import create_model
from potstill.thinning import Recipe, count_macs, thin

NETWORKS: dict[str, tuple[int, list[str]]] = {
    "googlenet_cifar": (32, ["inception_blocks.*conv.weight"]),
    "googlenet": (224, ["inception*conv.weight"]),
    "resnet50": (224, ["layer*.conv?.weight"]),
    "mobilenet_v2": (224, ["features.*.weight"]),
}
"""Side of the images, and the layers with gates."""
STEPS = 20


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asked", type=float, help="share of the latency that shall stay")
    parser.add_argument("--rounding", action="store_true", help="measure widths of whole multiples")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each network is measured at the end")
    options = parser.parse_args()
    each = list(product(options.networks, options.batches))
    if options.asked:
        print(show([asked_and_got(*one, options.asked, options.seconds) for one in each]), flush=True)
    if options.rounding:
        print(show([row for one in each for row in rounded(*one, options.seconds)]), flush=True)


def show(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table."""
    return tabulate(rows, "keys", "github", disable_numparse=True)


def start(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in channels-last layout and two images."""
    torch.manual_seed(0)
    side = NETWORKS[name][0]
    model = create_model(name).to(memory_format=torch.channels_last)
    return model, torch.randn(2, 3, side, side).to(memory_format=torch.channels_last)


def asked_and_got(name: str, batch: int, share: float, seconds: float) -> dict[str, Any]:
    """Train gates for some steps with a target of latency, thin, and measure."""
    model, images = start(name)
    dense, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), 0.01)
    gates = {"class": "L0Regularizer", "weights": NETWORKS[name][1], "target_latency": share, "latency_batch": batch}
    window = {"regularizer": {"instance_name": "gates"}, "starting_minibatch": 0, "ending_minibatch": STEPS}
    schedule = {"regularizers": {"gates": {**gates, "droprate_init": 0.05}}, "policies": [window]}
    row = {"network": name, "batch": batch, "asked": share}
    try:
        scheduler = dict_config(model, optimizer, schedule, example_inputs=images)
    except ScheduleError as error:
        return {**row, "got": str(error).split(": ", 2)[-1].partition(";")[0]}
    scheduler.on_epoch_begin(0, optimizer, STEPS)
    for step in range(STEPS):
        scheduler.on_minibatch_begin(0, step, STEPS, optimizer)
        out = model(images)
        loss = nn.functional.cross_entropy(getattr(out, "logits", out), torch.arange(len(images)))
        loss = scheduler.before_backward_pass(0, step, STEPS, loss, optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(0, step, STEPS, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, step, STEPS, optimizer)
    scheduler.on_epoch_end(0, optimizer)
    scheduler.finish()
    scheduler.thin(optimizer)
    return {**row, **compared(dense, model, images, batch, seconds)}


def rounded(name: str, batch: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Remove half of the multiply-adds in multiples of so many channels, and with Torch-Pruning, and measure."""
    model, images = start(name)
    recipe = prune_channels(copy.deepcopy(model), images, macs=0.5)
    for multiple in (1, 8, 16):
        small = copy.deepcopy(model)
        zero(small, recipe)
        thin(small, images, round_to=multiple)
        yield {"network": name, "batch": batch, "multiple": multiple, **compared(model, small, images, batch, seconds)}
    peer = peers(copy.deepcopy(model), images)
    if peer is not None:
        yield {"network": name, "batch": batch, "multiple": "peer", **compared(model, peer, images, batch, seconds)}


@torch.no_grad()
def zero(model: nn.Module, recipe: Recipe) -> None:
    """Zero what makes the channels that a recipe removes."""
    parameters = dict(model.named_parameters())
    for change in recipe.tensors:
        if change.name in parameters and 0 in change.keep:
            gone = torch.ones(len(parameters[change.name]), dtype=torch.bool)
            gone[change.keep[0]] = False
            parameters[change.name][gone] = 0


def peers(model: nn.Module, images: Tensor) -> nn.Module | None:
    """Return a network from which Torch-Pruning took half of the multiply-adds; None where it is not installed."""
    try:
        import torch_pruning
    except ImportError:
        return None
    goal = 0.5 * count_macs(model, images)
    ignored = [module for module in model.modules() if isinstance(module, nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model.eval(), images, torch_pruning.importance.MagnitudeImportance(p=1), pruning_ratio=0.9,
        iterative_steps=60, ignored_layers=ignored,
    )  # fmt: skip
    while count_macs(model, images) > goal:
        pruner.step()
    return model


def compared(dense: nn.Module, small: nn.Module, images: Tensor, batch: int, seconds: float) -> dict[str, str]:
    """Return times, multiply-adds and parameters of two networks."""
    whole, part = milliseconds([dense, small], resized(images, batch), seconds)
    macs = count_macs(small, images) / count_macs(dense, images)
    parameters = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())
    shares = {"MACs": f"{macs:.3f}", "parameters": f"{parameters:.3f}"}
    return {"got": f"{part / whole:.3f}", **shares, "ms": f"{whole:.2f} -> {part:.2f}"}


if __name__ == "__main__":
    main()
