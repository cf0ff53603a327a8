"""The rows of the GoogLeNet table, and what each trains: runs of the command line, one after the other.

dense        small images first, then full ones
target       from the dense network: gates with a target, then fine-tuning of the thinned network
strength     the same with a strength, and `as_strength` asks for what it reached
longer       the dense network for as many epochs more as a row has: no gates
coupled      from the dense network: channels removed at once by their L1 norms, as many as a row lost; fine-tuning
scratch      the shape that a row ended with, trained from nothing as the dense network was
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

IMAGES, HELD_OUT, BATCH = 45_000, 5_000, 128
SIDE, SMALL_SIDE = 32, 24
GATED = ["inception_blocks.*conv.weight"]
MILD = 0.10
"""Rows with targets up to this are fine-tuned for longer: they have to become better than the dense network."""
PUBLISHED = ((89.57, 0.0), (87.87, 0.06), (90.00, 0.10), (86.56, 0.22), (88.62, 0.39), (82.79, 0.55), (85.88, 0.64))
PUBLISHED += ((80.22, 0.815),)
"""Test accuracy in % and sparsity: the share of the parameters that is gone."""


@dataclass(frozen=True)
class Protocol:
    """Epochs of each part of the training, and the seeds.

    `small` are epochs of the dense network on images of 24x24, which take half the time, `dense` on full ones; a row
    has gates for `gates` epochs and `tuning` epochs after them, or `mild` ones where it asks for so little that it
    should become better than the dense network.
    """

    small: int
    dense: int
    gates: int
    tuning: int
    mild: int
    seeds: tuple[int, ...]

    def epochs(self, row: Row) -> int:
        """Return the epochs of a row that starts from the dense network."""
        return self.gates + (self.mild if row.kind == "target" and row.value <= MILD else self.tuning)


PROTOCOLS = {
    "cpu": Protocol(small=12, dense=4, gates=3, tuning=3, mild=9, seeds=(0,)),
    "gpu": Protocol(small=0, dense=60, gates=20, tuning=40, mild=40, seeds=(0, 1, 2)),
    "test": Protocol(small=1, dense=1, gates=1, tuning=1, mild=1, seeds=(0,)),
}


@dataclass(frozen=True)
class Row:
    """A row: its kind, the target or strength that it asks for, or the row that it is compared with, and its seed."""

    kind: str
    value: float | None = None
    like: Row | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of its folder."""
        parts = [self.kind, self.like and self.like.name, self.value, self.seed and f"seed_{self.seed}"]
        return "_".join(f"{part}" for part in parts if part)


@dataclass(frozen=True)
class Phase:
    """A run of the command line: its schedule, what it starts from, and the plugin that makes its network."""

    folder: str
    epochs: int
    side: int
    schedule: dict[str, Any]
    start: str | None = None
    plugin: str | None = None


def rows(protocol: Protocol) -> Iterator[Row]:
    """Yield the rows, those that the published ones are compared with first."""
    for seed in protocol.seeds:
        yield Row("dense", seed=seed)
        targets = {value: Row("target", value, seed=seed) for value in (0.64, 0.10, 0.815, 0.39, 0.55, 0.22)}
        yield from targets.values()
        reached = []
        for strength in (10, 30):
            asked = Row("strength", strength, seed=seed)
            reached.append(Row("as", like=asked, seed=seed))
            yield from (asked, reached[-1])
        yield Row("longer", seed=seed)
        for value in (0.64, 0.815):
            yield from (Row(kind, like=targets[value], seed=seed) for kind in ("coupled", "scratch"))
        yield Row("scratch", like=reached[-1], seed=seed)  # the smallest network of the table
    if len(protocol.seeds) == 1:
        yield from (Row("dense", seed=1), Row("target", 0.64, seed=1))


def phases(row: Row, protocol: Protocol, sparsity: Callable[[Row], float], files: Callable[[Row], Path]) -> list[Phase]:
    """Return the runs of a row; `sparsity(row)` and `files(row)` are what a finished one lost and its thinned files."""
    if row.kind == "dense":
        return _from_nothing(row.name, protocol)
    if row.kind == "scratch":
        as_long = replace(protocol, dense=protocol.dense + protocol.epochs(row.like))
        return _from_nothing(row.name, as_long, SHAPE_OF.format(files(row.like)))
    dense, epochs = Row("dense", seed=row.seed), protocol.epochs(row)
    schedule = cycle(epochs, peak=0.05, warm_up=0.2, first=0.005, last=1e-5)
    if row.kind == "coupled":
        plugin = COUPLED.format(files(dense), sparsity(row.like))
        return [Phase(row.name, epochs, SIDE, schedule, plugin=plugin)]
    if row.kind != "longer":
        goal = {"strength": row.value} if row.kind == "strength" else {"target_sparsity": row.value}
        if row.kind == "as":
            goal = {"target_sparsity": round(sparsity(row.like), 4)}
        gates = {"class": "L0Regularizer", "weights": GATED, "droprate_init": 0.05, **goal}
        window = {"regularizer": {"instance_name": "gates"}, "starting_epoch": 0, "ending_epoch": protocol.gates}
        thinner = {"extension": {"instance_name": "thinner"}, "epochs": [protocol.gates]}  # fine-tuning costs less
        schedule |= {"regularizers": {"gates": gates}, "extensions": {"thinner": {"class": "Thinner"}}}
        schedule["policies"] = [*schedule["policies"], window, thinner]
    return [Phase(row.name, epochs, SIDE, schedule, start=dense.name)]


def _from_nothing(name: str, protocol: Protocol, plugin: str | None = None) -> list[Phase]:
    """Return the runs of a network that is not trained yet."""
    if not protocol.small:
        schedule = cycle(protocol.dense, peak=0.15, warm_up=0.25, first=0.01, last=1e-5)
        return [Phase(name, protocol.dense, SIDE, schedule, plugin=plugin)]
    first, last = f"{name}_{SMALL_SIDE}", cycle(protocol.dense, peak=0.04, warm_up=0.05, first=0.04, last=4e-5)
    small = cycle(protocol.small, peak=0.15, warm_up=0.25, first=0.01, last=0.04)
    return [
        Phase(first, protocol.small, SMALL_SIDE, small, plugin=plugin),
        Phase(name, protocol.dense, SIDE, last, start=first, plugin=plugin),
    ]


def cycle(epochs: int, peak: float, warm_up: float, first: float, last: float) -> dict[str, Any]:
    """Return a schedule of one learning rate curve: from `first` to `peak` in a part of the steps, then to `last`."""
    steps = epochs * -(-IMAGES // BATCH)
    curve = {
        "class": "OneCycleLR",
        "max_lr": peak,
        "total_steps": steps,
        "pct_start": warm_up,
        "div_factor": peak / first,
        "final_div_factor": first / last,
        "cycle_momentum": False,
    }
    times = {"starting_minibatch": 0, "ending_minibatch": steps}
    return {"lr_schedulers": {"cycle": curve}, "policies": [{"lr_scheduler": {"instance_name": "cycle"}, **times}]}


DENSE_PARAMETERS = 260_650
NETWORK = "googlenet_table"
"""The name under which a plugin registers its network."""
COUPLED = '''"""The dense network after the channels of smallest L1 norm went, over all layers."""
import torch
from potstill import prune_channels
from potstill.models import create_model, register_model
from potstill.thinning import load, resize_to


@register_model("googlenet_table", input_shape=(3, 32, 32), num_classes=10)
def network(num_classes, in_channels):
    """GoogLeNet for CIFAR-10 without its smallest channels."""
    model = load(create_model("googlenet_cifar"), "{}")
    prune_channels(model, torch.randn(2, 3, 32, 32), sparsity={}, score="l1")
    small = resize_to(create_model("googlenet_cifar"), model.state_dict())  # a network that was never larger
    small.load_state_dict(model.state_dict())
    return small.train()
'''
SHAPE_OF = '''"""The shape of a thinned network, its parameters drawn anew."""
from potstill.models import create_model, register_model
from potstill.models.layers import initialise_for_relu
from potstill.thinning import load, resize_to


@register_model("googlenet_table", input_shape=(3, 32, 32), num_classes=10)
def network(num_classes, in_channels):
    """GoogLeNet for CIFAR-10 in the shape of a thinned one."""
    thinned = load(create_model("googlenet_cifar"), "{}")
    model = resize_to(create_model("googlenet_cifar"), thinned.state_dict())  # a network that was never larger
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return initialise_for_relu(model, mode="fan_in").train()
'''
