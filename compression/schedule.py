"""Schedules: load one, checked whole, and build a scheduler from it.

`load_schedule` makes a plan of a file or a mapping and reports every mistake at once; `build` turns the plan into a
`CompressionScheduler`. `file_config` and `dict_config` do both, under Distiller's names.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from potstill.thinning import unwrapped

from .language.check import check_dict, check_file
from .language.errors import Problem, ScheduleError, ScheduleWarning, failed
from .language.find import PluginError, find_schedule, load_plugin
from .language.plan import InstancePlan, PolicyPlan, Schedule
from .language.schema import json_schema
from .language.signatures import KINDS, injected
from .learning_rates import MultiStepMultiGammaLR, PolynomialLR
from .own_optimizer import must_train
from .policies import LRPolicy, PruningPolicy, RegularizationPolicy, ScheduledTrainingPolicy, TeacherBuilder
from .scheduler import CompressionScheduler

__all__ = [
    "InstancePlan",
    "MultiStepMultiGammaLR",
    "PluginError",
    "PolicyPlan",
    "PolynomialLR",
    "Problem",
    "Schedule",
    "ScheduleError",
    "ScheduleWarning",
    "build",
    "dict_config",
    "file_config",
    "find_schedule",
    "json_schema",
    "load_plugin",
    "load_schedule",
]


def load_schedule(
    source: str | Path | Mapping[str, Any], model: nn.Module | None, *, name: str | None = None
) -> Schedule:
    """Load a schedule and check all of it.

    Args:
        source: a path, the name of a shipped schedule, or the schedule as a mapping.
        model: the network that it is for, wrapped or not; None leaves names and shapes of tensors unchecked.
        name: what messages call the schedule (default: its path).

    Raises:
        ScheduleError: it has mistakes; all of them are listed.
    """
    network = None if model is None else unwrapped(model)
    if isinstance(source, Mapping):
        return check_dict(source, network, name)
    return check_file(find_schedule(source), network, name)


def build(
    schedule: Schedule,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    *,
    scheduler: CompressionScheduler | None = None,
    example_inputs: Any = None,
    build_teacher: TeacherBuilder | None = None,
    process_group: ProcessGroup | None = None,
) -> CompressionScheduler:
    """Make the classes that a schedule names and add its policies: in its order, those of learning rates last.

    Args:
        schedule: what `load_schedule` gave.
        model: the network, wrapped or not.
        optimizer: needed where the schedule has learning-rate schedulers.
        scheduler: one to add the policies to, instead of a new one.
        example_inputs: what `model` is called with, for a new scheduler.
        build_teacher: makes a trained network of (architecture, checkpoint or None, pretrained), for distillation.
        process_group: the ranks that train this network alike, for a new scheduler (default: all).

    Raises:
        ScheduleError: classes refuse their arguments, policies cannot be carried out with this model, or there is no
            optimizer where one is needed; all of that is listed.
        ValueError: the optimizer is of another model.
    """
    scheduler = scheduler or CompressionScheduler(model, example_inputs, process_group=process_group)
    must_train(optimizer, scheduler.model, scheduler.own_parameters())
    taken = {policy.name: 1 for policy in scheduler.policies}
    made: dict[tuple[str, str], Any] = {}
    offers = {"model": scheduler.model, "optimizer": optimizer, "build_teacher": build_teacher}
    problems: dict[Problem, Exception] = {}
    for i, plan in sorted(enumerate(schedule.policies), key=lambda pair: pair[1].kind == "lr_scheduler"):
        instance = schedule.instances[KINDS[plan.kind], plan.instance]
        line, where = instance.line, f"{instance.section}.{instance.name}"
        try:
            policy = _policy(plan, instance, made, {**offers, "name": plan.instance})
            line, where = plan.line, f"policies[{i}].{plan.kind}"
            scheduler.add_policy(policy, plan.window, name=_unused(plan.instance, taken))
        except (ValueError, TypeError) as error:
            problems[Problem(schedule.name, line, where, str(error))] = error
    if problems:
        raise ScheduleError(problems) from next(iter(problems.values()))
    return scheduler


def file_config(  # noqa: PLR0913 -- keywords
    model: nn.Module,
    optimizer: Optimizer | None,
    filename: str | Path,
    scheduler: CompressionScheduler | None = None,
    resumed_epoch: int | None = None,
    *,
    example_inputs: Any = None,
    build_teacher: TeacherBuilder | None = None,
    process_group: ProcessGroup | None = None,
) -> CompressionScheduler:
    """Return the scheduler of a schedule file: Distiller's entry point, `load_schedule` and `build` in one.

    `resumed_epoch` says that a run goes on, whose state is loaded next: then a latency that this machine cannot reach
    is no error. It changes nothing else: learning rates follow absolute epochs, and their state comes with the
    scheduler's.

    Raises:
        ScheduleError: the schedule has mistakes; all of them are listed.
    """
    schedule = load_schedule(filename, model)
    _tell(schedule)
    goes_on = resumed_epoch is not None
    scheduler = scheduler or CompressionScheduler(model, example_inputs, process_group=process_group, goes_on=goes_on)
    return build(schedule, model, optimizer, scheduler=scheduler, build_teacher=build_teacher)


def dict_config(  # noqa: PLR0913 -- keywords
    model: nn.Module,
    optimizer: Optimizer | None,
    sched_dict: Mapping[str, Any],
    scheduler: CompressionScheduler | None = None,
    resumed_epoch: int | None = None,
    *,
    example_inputs: Any = None,
    build_teacher: TeacherBuilder | None = None,
    process_group: ProcessGroup | None = None,
) -> CompressionScheduler:
    """Return the scheduler of a schedule given as a mapping, which stays as it is; otherwise like `file_config`.

    Raises:
        ScheduleError: the schedule has mistakes; all of them are listed.
    """
    schedule = load_schedule(sched_dict, model)
    _tell(schedule)
    goes_on = resumed_epoch is not None
    scheduler = scheduler or CompressionScheduler(model, example_inputs, process_group=process_group, goes_on=goes_on)
    return build(schedule, model, optimizer, scheduler=scheduler, build_teacher=build_teacher)


def _policy(
    plan: PolicyPlan, instance: InstancePlan, made: dict[tuple[str, str], Any], offers: Mapping[str, Any]
) -> ScheduledTrainingPolicy:
    """Return the policy of a plan; policies share the pruner that they name, and its thresholds of the first use."""
    key = instance.section, instance.name
    if plan.kind == "lr_scheduler":
        if offers["optimizer"] is None:
            raise ValueError("needs an optimizer, and none was given")
        if key not in made:  # policies of equal curves share how far they have come
            made[key] = made.setdefault(("curve", f"{instance.cls} {instance.args}"), {})
        return LRPolicy(partial(instance.cls, **instance.args), offers["optimizer"], made[key])
    acting = made[key] if key in made else _make(instance, offers)
    if plan.kind == "pruner":
        made[key] = acting
        return PruningPolicy(acting, plan.args)
    return RegularizationPolicy(acting, plan.args) if plan.kind == "regularizer" else acting


def _make(instance: InstancePlan, offers: Mapping[str, Any]) -> Any:
    """Return the instance.

    Raises:
        ValueError: its class refuses the arguments, or, being a plugin's, fails.
    """
    try:
        return instance.cls(**injected(instance.cls, offers), **instance.args)
    except Exception as error:
        if isinstance(error, (ValueError, TypeError)) or instance.cls.__module__.startswith(f"{__package__}."):
            raise
        raise ValueError(failed(instance.cls.__name__, error)) from error


def _unused(name: str, taken: dict[str, int]) -> str:
    """Return a name that no policy has yet: the instance's, or that with a number, the highest of which is kept."""
    number, unused = taken.get(name, 0), name
    while unused in taken:
        number += 1
        unused = f"{name}.{number}"
    taken[unused] = 1
    taken[name] = max(number, 1)
    return unused


def _tell(schedule: Schedule) -> None:
    for warning in schedule.warnings:
        warnings.warn(warning, ScheduleWarning, stacklevel=3)
