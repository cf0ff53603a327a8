"""`--dry-run`: the resolved schedule, without data: what acts when, on which parameters, at what learning rate."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
from torch import nn

from potstill.compression import CompressionScheduler, LRPolicy, format_table
from potstill.compression.names import resolve
from potstill.compression.policies import Moment
from potstill.compression.schedule import InstancePlan, Schedule, build
from potstill.compression.steps import Step

from .optimizers import make_optimizer
from .prepare import build_model, example_inputs, read_schedule, start_checkpoint

logger = logging.getLogger("potstill")
NAMED_ARGUMENTS = ("weights", "levels", "sensitivities", "thresholds", "reg_regims")


def dry_run(options: argparse.Namespace) -> None:
    """Print what a schedule would do to a network.

    Raises:
        ScheduleError: all that is wrong with the schedule.
    """
    from potstill.models import model_info

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
    logger.info("%s", learning_rates(scheduler, optimizer, epochs))


def policies_table(schedule: Schedule, model: nn.Module) -> pd.DataFrame:
    """One row a policy: kind, instance, class, when, and the parameters that it names."""
    from potstill.compression.language.classes import KINDS

    rows = []
    for plan in schedule.policies:
        instance = schedule.instances[KINDS[plan.kind], plan.instance]
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


def learning_rates(scheduler: CompressionScheduler, optimizer: torch.optim.Optimizer, epochs: int) -> str:
    """The learning rate by epoch, runs of equal ones together; plateau schedulers need results and are left out."""
    rates = []
    for epoch in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        for policy in scheduler.policies:
            by_time = isinstance(policy, LRPolicy) and policy.window.unit == "epoch" and not policy.needs_metrics
            if by_time and policy.window.covers(Step(epoch)):
                policy.on_epoch_end(Moment(Step(epoch), optimizer))
    lines, start = [], 0
    for epoch in range(1, epochs + 1):
        if epoch == epochs or rates[epoch] != rates[start]:
            span = f"{start}" if epoch - 1 == start else f"{start}-{epoch - 1}"
            lines.append(f"  {span:>9}  {rates[start]:.6g}")
            start = epoch
    return "learning rate by epoch:\n" + "\n".join(lines)


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
