"""What a schedule would do to learning rate and size, epoch by epoch, without data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from potstill.thinning import count_macs, thin, unwrapped
from potstill.thinning.running.inputs import run, tensors_of

from .language.plan import Schedule
from .policies import Moment, PruningPolicy
from .pruners import Pruner
from .schedule import build, load_schedule
from .scheduler import CompressionScheduler
from .sparsity_tables import sparsity
from .steps import Step

ALMOST_ZERO = 1e-6  # ranks below every weight


@dataclass(frozen=True)
class Epoch:
    """The learning rate of an epoch's last step, how far compression is after it, and what thinning would leave.

    `zeros` is in percent of the parameters that the network has then, `gone` in percent of its first ones, as in the
    line of an epoch. Multiply-adds are those of one image.
    """

    rate: float
    zeros: float
    gone: float
    parameters: int
    macs: int


def dry_run(
    schedule: str | Path | Mapping[str, Any] | Schedule,
    model: nn.Module,
    epochs: int,
    example_inputs: Any,
    lr: float = 0.1,
) -> pd.DataFrame:
    """Return what a schedule would do to a copy of a network: a row an epoch (see `course_table`).

    Counts are those of a training, what depends on the values of weights is not: nothing is learned. Policies that
    count minibatches are left out. `potstill.plots.timeline` draws it.

    Args:
        schedule: a file, the name of a shipped one, the schedule as a mapping, or what `load_schedule` gave.
        model: the network; it stays as it is.
        epochs: how many.
        example_inputs: what `model` is called with.
        lr: the learning rate that learning-rate schedulers begin with.

    Raises:
        ScheduleError: the schedule has mistakes; all of them are listed.
    """
    copied = copy.deepcopy(unwrapped(model))
    plan = schedule if isinstance(schedule, Schedule) else load_schedule(schedule, copied)
    optimizer = torch.optim.SGD(copied.parameters(), lr, momentum=0.9)
    scheduler = build(by_epoch(plan), copied, optimizer, example_inputs=example_inputs)
    dense = size(scheduler)
    return course_table(timeline(scheduler, optimizer, epochs), dense)


def by_epoch(schedule: Schedule) -> Schedule:
    """Return the policies that count epochs: how many minibatches make one is not known without data."""
    return replace(schedule, policies=[plan for plan in schedule.policies if plan.window.unit == "epoch"])


def course_table(rows: Sequence[Epoch], dense: tuple[int, int]) -> pd.DataFrame:
    """Return a row an epoch: learning rate, zeros and gone in percent, parameters and MACs also in percent.

    Args:
        rows: the epochs.
        dense: parameters and multiply-adds of the network before the first epoch.
    """
    columns = ["epoch", "learning rate", "zeros (%)", "gone (%)", "parameters", "MACs", "parameters (%)", "MACs (%)"]
    told = [(epoch, row.rate, row.zeros, row.gone, row.parameters, row.macs) for epoch, row in enumerate(rows)]
    shares = [(100 * row.parameters / dense[0], 100 * row.macs / dense[1]) for row in rows]
    return pd.DataFrame([(*one, *share) for one, share in zip(told, shares, strict=True)], columns=columns)


def timeline(scheduler: CompressionScheduler, optimizer: Optimizer, epochs: int) -> list[Epoch]:
    """Run the policies through all epochs, one minibatch each, without images; the scheduler's model is used up.

    Counts of pruners and targets of gates are those of a training; what depends on the values of weights (thresholds,
    penalties) is not, since nothing is learned. Zeros that no mask holds come to life, as in training. Pruners that
    go by activations or gradients see those of random images; plateau schedulers are given results that keep
    improving.
    """
    rows: list[Epoch] = []
    model = scheduler.model
    total = sum(p.numel() for p in model.parameters())
    found: list[int] | None = None
    sizes = _Sizes(scheduler)
    watching = [
        p for p in scheduler.policies if isinstance(p, PruningPolicy) and type(p.pruner).waits is not Pruner.waits
    ]
    zeros, parameters, macs = 0.0, 0, 0
    for epoch in range(epochs):
        at = (epoch, 0, 1, optimizer)
        scheduler.on_epoch_begin(epoch, optimizer)
        scheduler.on_minibatch_begin(*at)
        if _need_passes(watching, Step(epoch)):
            _pass(scheduler, Moment(Step(epoch), optimizer))
        scheduler.before_parameter_optimization(*at)
        rate = optimizer.param_groups[0]["lr"]  # a warm-up lowers it for the step alone
        _move(model)
        scheduler.on_minibatch_end(*at)
        before, found = found, [int(p.count_nonzero()) for p in model.parameters()]
        if found != before:
            zeros = 100 * sparsity(model)
            parameters, macs = sizes.thinned(sum(found))
        rows.append(Epoch(rate, zeros, 100 * (1 - parameters / total), parameters, macs))
        scheduler.on_epoch_end(epoch, optimizer, {"min": -float(epoch), "max": float(epoch)})
    return rows


def _need_passes(watching: Sequence[PruningPolicy], step: Step) -> bool:
    """Return whether a pruner that will act waits for what it goes by."""
    return any(policy.pruner.waits() for policy in watching if not policy.window.over(step))


def _pass(scheduler: CompressionScheduler, moment: Moment) -> None:
    """Make two training passes, as pruners find what to watch in the first; nothing is learned."""
    model = scheduler.model
    training = model.training
    model.train()
    for _ in range(2):
        outputs = [tensor for tensor in tensors_of(run(model, scheduler.example_inputs)) if tensor.requires_grad]
        loss = torch.stack([(output.float() + 1).square().mean() for output in outputs]).sum()
        for policy in scheduler.policies:
            policy.see_loss(moment, loss)
        loss.backward()
    model.zero_grad()
    model.train(training)


def timeline_table(rows: Sequence[Epoch]) -> pd.DataFrame:
    """Return the timeline with epochs that are alike in one row."""
    told = [(f"{row.rate:.6g}", f"{row.zeros:.2f}", f"{row.gone:.2f}", row.parameters, row.macs) for row in rows]
    spans: list[tuple[object, ...]] = []
    start = 0
    for epoch in range(1, len(told) + 1):
        if epoch == len(told) or told[epoch] != told[start]:
            spans.append((str(start) if epoch - 1 == start else f"{start}-{epoch - 1}", *told[start]))
            start = epoch
    return pd.DataFrame(spans, columns=["epochs", "learning rate", "zeros (%)", "gone (%)", "parameters", "MACs"])


def size(scheduler: CompressionScheduler) -> tuple[int, int]:
    """Return parameters and multiply-adds of the network as it is."""
    model = scheduler.model
    return sum(p.numel() for p in model.parameters()), count_macs(model, first(scheduler.example_inputs))


def first(inputs: Any) -> Any:
    """Return the first example of a batch of inputs of any shape."""
    return tree_map_only(Tensor, lambda tensor: tensor[:1], inputs)


def _move(model: nn.Module) -> None:
    """Do what an optimizer does to zeros: they do not stay, unless a mask holds them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.masked_fill_(parameter == 0, ALMOST_ZERO)


class _Sizes:
    """Parameters and multiply-adds of the thinned network.

    Thinning for each epoch is what a dry run takes its time for. Where no slice of a parameter is zero there is nothing
    to remove, if there was not the last time; hooks (gates) may know of more, so that with hooks it is always done.
    """

    def __init__(self, scheduler: CompressionScheduler) -> None:
        self._scheduler = scheduler
        self._whole: dict[int, int] = {}  # parameters of a network that thinning left as it was -> multiply-adds

    def thinned(self, nonzero: int) -> tuple[int, int]:
        """Return the two numbers of the model now, of whose parameters so many are not zero."""
        parameters = sum(p.numel() for p in self._scheduler.model.parameters())
        whole = not _may_shrink(self._scheduler.model)
        if whole and parameters in self._whole:
            return parameters, self._whole[parameters]
        found = _thinned(self._scheduler)
        if whole and found[:2] == (nonzero, parameters):
            self._whole[parameters] = found[2]
        return found[1:]


def _may_shrink(model: nn.Module) -> bool:
    """Return whether a slice of a parameter is zero, or something hooks into the forward pass."""
    if any(module._forward_pre_hooks or module._forward_hooks for module in model.modules()):
        return True
    return any(
        not p.detach().movedim(dim, 0).reshape(p.shape[dim], -1).any(1).all()
        for p in model.parameters()
        for dim in range(p.dim())
        if p.numel()
    )


def _thinned(scheduler: CompressionScheduler) -> tuple[int, int, int]:
    """Count what is left of a thinned copy."""
    model = copy.deepcopy(scheduler.model)
    thin(model, scheduler.example_inputs)
    sizes = [(int(p.count_nonzero()), p.numel()) for p in model.parameters()]
    nonzero, parameters = (sum(column) for column in zip(*sizes, strict=True))
    return nonzero, parameters, count_macs(model, first(scheduler.example_inputs))
