"""All schedules of a sweep are built before anything trains: what is wrong with one is said now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from potstill.compression import CompressionScheduler, ScheduleError, build
from potstill.compression.language.signatures import KINDS
from potstill.compression.schedule import PolicyPlan, Schedule, load_schedule
from potstill.models.datasets import DataBundle

from ..cli.options import Options
from ..run.model_and_data import build_model, described, example_inputs, start_checkpoint
from ..run.optimizers import make_optimizer
from ..run.randomness import seed_everything
from ..run.teachers import Teachers, with_teacher
from ..run.training_end import end_of_training
from .points import Point


@dataclasses.dataclass(frozen=True)
class Checked:
    """A point whose schedule can be carried out.

    Attributes:
        point: the point.
        schedule: its plan, without the teacher that the options may ask for.
        classes: policy -> class of what acts.
        epochs: where training ends.
    """

    point: Point
    schedule: Schedule
    classes: Mapping[str, str]
    epochs: int


def check_all(points: Iterable[Point], options: Options, data: DataBundle) -> list[Checked]:
    """Return points as they can be trained.

    Raises:
        ScheduleError: all that is wrong with any of their schedules.
    """
    checked, problems = [], []
    for one in points:
        try:
            checked.append(check(one, options, data))
        except ScheduleError as error:
            problems += error.problems
    if problems:
        raise ScheduleError(problems)
    return checked


def check(point: Point, options: Options, data: DataBundle) -> Checked:
    """Return a point as it can be trained.

    Raises:
        ScheduleError: all that is wrong with its schedule.
    """
    seed_everything(options.training.seed, options.training.deterministic)
    classes, shape = len(data.classes), data.input_shape
    checkpoint = start_checkpoint(options)
    model = build_model(options, described(options, checkpoint), classes, checkpoint)
    name = ", ".join(f"--sweep {key}={value}" for key, value in point.values.items())
    loaded = load_schedule(point.data, model, name=name or options.compression.compress)
    teachers = Teachers.of(options, classes, shape)
    schedule = with_teacher(options, loaded, model, teachers) or loaded
    scheduler = CompressionScheduler(model, example_inputs(shape))
    build(schedule, model, make_optimizer(options.training, model), scheduler=scheduler, build_teacher=teachers)
    acting = {policy.name: policy.acts for policy in scheduler.policies}
    return Checked(point, loaded, acting, end_of_training(options.training, schedule, minibatches(options, data)))


def minibatches(options: Options, data: DataBundle) -> int:
    """Return how many make an epoch."""
    return data.train.batch_count(options.training.batch_size)


def departs(found: Sequence[Checked], count: int) -> int:
    """Return the epoch before which all points do the same and nothing compresses; `count` minibatches an epoch."""
    firsts = [one.epochs for one in found]
    for plans in zip(*(one.schedule.policies for one in found), strict=True):
        alike = all(
            _same(plan, one.schedule, plans[0], found[0].schedule) for plan, one in zip(plans, found, strict=True)
        )
        if compresses(plans[0], found[0].schedule) or not alike:
            firsts += [plan.window.epoch_of(plan.window.start, count) for plan in plans]
    return min(firsts)


def _same(plan: PolicyPlan, schedule: Schedule, other: PolicyPlan, others: Schedule) -> bool:
    """Return whether two policies do the same, wherever they stand in a file."""
    ours, theirs = (s.instances[KINDS[p.kind], p.instance] for p, s in ((plan, schedule), (other, others)))
    windows = (plan.window, plan.args) == (other.window, other.args)
    return windows and (ours.cls, ours.args) == (theirs.cls, theirs.args)


def compresses(plan: PolicyPlan, schedule: Schedule) -> bool:
    """Return whether a policy makes the network another one: learning rates and teachers do not."""
    instance = schedule.instances[KINDS[plan.kind], plan.instance]
    return plan.kind in ("pruner", "regularizer") or getattr(instance.cls, "compresses", False) is True


def without_compression(data: Mapping[str, Any], schedule: Schedule) -> dict[str, Any] | None:
    """Return a schedule's data without the policies that compress and what only they use; None if nothing is left."""
    kept = [
        (entry, plan)
        for entry, plan in zip(data["policies"], schedule.policies, strict=True)
        if not compresses(plan, schedule)
    ]
    used = {(KINDS[plan.kind], plan.instance) for _, plan in kept}
    sections = {
        section: {name: entry for name, entry in data[section].items() if (section, name) in used}
        for section in {section for section, _ in used}
    }
    return {**sections, "policies": [entry for entry, _ in kept]} if kept else None
