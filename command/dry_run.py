"""`--dry-run`: the resolved schedule, without data: what acts when, on which parameters, at what learning rate."""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pandas as pd
from torch import nn
from torch.optim import Optimizer

from potstill.compression import CompressionScheduler, build, format_table, sparsity
from potstill.compression.language.classes import KINDS
from potstill.compression.names import resolve
from potstill.compression.schedule import InstancePlan, PolicyPlan, Schedule
from potstill.models import model_info
from potstill.thinning import count_macs, thin

from .optimizers import make_optimizer
from .prepare import build_model, example_inputs, read_schedule, start_checkpoint

logger = logging.getLogger("potstill")
NAMED_ARGUMENTS = ("weights", "levels", "sensitivities", "thresholds", "reg_regims")


def dry_run(options: argparse.Namespace) -> None:
    """Print what a schedule would do to a network.

    Raises:
        ScheduleError: all that is wrong with the schedule.
    """
    info = model_info(options.arch)
    checkpoint = start_checkpoint(options)
    classes = checkpoint["num_classes"] if checkpoint else info.num_classes
    model = build_model(options, classes, info.input_shape[0], checkpoint)
    schedule = read_schedule(options, model)
    if schedule is None:
        return
    optimizer = make_optimizer(
        options.optimizer, model.parameters(), options.lr, options.momentum, options.weight_decay
    )
    scheduler = CompressionScheduler(model, example_inputs(info.input_shape))
    build(schedule, model, optimizer, scheduler=scheduler)
    logger.info("%s", format_table(policies_table(schedule, model), options.table))
    ends = [p.window.end for p in schedule.policies if p.window.unit == "epoch"]
    epochs = options.epochs if options.epochs is not None else max(ends, default=1)
    logger.info("%s", format_table(timeline(scheduler, optimizer, epochs), options.table))
    for remark in remarks(schedule, model, epochs):
        logger.warning("%s", remark)


def policies_table(schedule: Schedule, model: nn.Module) -> pd.DataFrame:
    """One row a policy: kind, instance, class, when, and the parameters that it names."""
    rows = []
    for plan in schedule.policies:
        instance = _instance(schedule, plan)
        names = named_parameters(instance, model)
        rows.append(
            {
                "kind": plan.kind,
                "instance": plan.instance,
                "class": instance.cls.__name__,
                "when": str(plan).partition(": ")[2],
                "sparsity": _sparsity(instance),
                "parameters": len(names),
                "names": _brief(names),
            }
        )
    return pd.DataFrame(rows)


def named_parameters(instance: InstancePlan, model: nn.Module) -> list[str]:
    """The parameters that an instance's arguments name."""
    found: dict[str, None] = {}
    for argument in NAMED_ARGUMENTS:
        value = instance.args.get(argument)
        if value:
            patterns = [name for name in _keys(value) if name != "*"] or list(dict(model.named_parameters()))
            found |= dict.fromkeys(resolve(patterns, model))
    return list(found)


def timeline(scheduler: CompressionScheduler, optimizer: Optimizer, epochs: int) -> pd.DataFrame:
    """Learning rate and size by epoch, epochs that are alike in one row.

    The policies really run, on the untrained network and without images: counts of pruners and targets of gates are
    those of a training, what depends on the values of weights (thresholds, penalties) is not. Plateau schedulers are
    given results that keep improving. Parameters and MACs are those that thinning would leave.
    """
    rows: list[tuple[object, ...]] = []
    for epoch in range(epochs):
        at = (epoch, 0, 1, optimizer)
        scheduler.on_epoch_begin(epoch, optimizer)
        scheduler.on_minibatch_begin(*at)
        rate = optimizer.param_groups[0]["lr"]
        scheduler.before_parameter_optimization(*at)
        scheduler.on_minibatch_end(*at)
        rows.append((f"{rate:.6g}", f"{100 * sparsity(scheduler.model):.2f}", *_thinned_size(scheduler, rows)))
        scheduler.on_epoch_end(epoch, optimizer, {"min": -float(epoch), "max": float(epoch)})
    spans: list[tuple[object, ...]] = []
    start = 0
    for epoch in range(1, epochs + 1):
        if epoch == epochs or rows[epoch] != rows[start]:
            spans.append((str(start) if epoch - 1 == start else f"{start}-{epoch - 1}", *rows[start]))
            start = epoch
    return pd.DataFrame(spans, columns=["epochs", "learning rate", "sparsity (%)", "parameters", "MACs"])


def _thinned_size(scheduler: CompressionScheduler, rows: list[tuple[object, ...]]) -> tuple[object, object]:
    """Parameters and MACs after thinning; worked out anew only where the zeros changed."""
    zeros = f"{100 * sparsity(scheduler.model):.2f}"
    if rows and rows[-1][1] == zeros:
        return rows[-1][2], rows[-1][3]
    model = copy.deepcopy(scheduler.model)
    thin(model, scheduler.example_inputs)
    return sum(p.numel() for p in model.parameters()), count_macs(model, scheduler.example_inputs[:1])


def remarks(schedule: Schedule, model: nn.Module, epochs: int) -> list[str]:
    """What is allowed but seldom meant: late windows, two policies on one parameter, first and last layers."""
    found = []
    acting = [(plan, named_parameters(_instance(schedule, plan), model)) for plan in schedule.policies]
    for plan, _ in acting:
        if plan.window.unit == "epoch" and plan.window.last >= epochs:
            fate = "never acts" if plan.window.start >= epochs else "is cut off"
            found.append(f"{plan.instance} {fate}: training ends before epoch {epochs}")
    for (one, names), (other, others) in combinations(acting, 2):
        both = sorted(set(names) & set(others))
        if both and one.window.unit == other.window.unit and set(one.window.times) & set(other.window.times):
            found.append(f"{one.instance} and {other.instance} act on {both[0]} at the same time ({len(both)} in all)")
    weights = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    for plan, names in acting:
        for place, name in (("first", weights[0]), ("last", weights[-1])):
            if name in names:
                found.append(f"{plan.instance} touches the {place} layer, {name}")
    return found


def _instance(schedule: Schedule, plan: PolicyPlan) -> InstancePlan:
    return schedule.instances[KINDS[plan.kind], plan.instance]


def _sparsity(instance: InstancePlan) -> str:
    args = instance.args
    if "final_sparsity" in args:
        return f"{args['initial_sparsity']:g} -> {args['final_sparsity']:g}"
    level = args.get("desired_sparsity", args.get("target_sparsity"))
    return "" if level is None else f"{level:g}"


def _keys(value: Any) -> Iterable[str]:
    return [value] if isinstance(value, str) else list(value)


def _brief(names: list[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, ..." if len(names) > most else shown
