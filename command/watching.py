"""What watches a run beside its metrics: early stopping and the trajectory, made from options and from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.compression.fields import Field, reading
from potstill.compression.names import UnknownName

from .early_stopping import EarlyStopping, first_epoch_to_watch
from .errors import UsageError
from .session import Session
from .stopping_rules import parse_rule
from .trajectory import Trajectory, TrajectoryOption

WATCHERS = ("early_stopping", "trajectory")


def watch(run: Session) -> None:
    """Set up early stopping and trajectory as the options ask.

    Raises:
        UsageError: a pattern of `--trajectory` fits no parameter, or `--early-stop` has no epoch to choose from.
    """
    if run.options.early_stop:
        first = first_epoch_to_watch(run.scheduler, run.epochs, run.minibatches)
        run.early_stopping = EarlyStopping(parse_rule(run.options.early_stop), first)
    if run.options.trajectory:
        option = TrajectoryOption.parse(run.options.trajectory)
        try:
            run.trajectory = Trajectory(run.model, option.patterns, option.interval(run.epochs * run.minibatches))
        except UnknownName as error:
            raise UsageError(f"--trajectory: {error}") from error


def resume(run: Session, checkpoint: Mapping[str, Any]) -> None:
    """Take up what the run of a checkpoint had watched; a watch that is new begins here.

    Raises:
        CheckpointError: what it watched is damaged.
    """
    known = {name: Field(checkpoint[name], name) for name in WATCHERS if checkpoint.get(name) is not None}
    if run.early_stopping and "early_stopping" in known:
        with reading("early_stopping"):
            run.early_stopping.restore(known["early_stopping"])
    elif run.early_stopping:
        run.early_stopping.first_epoch = max(run.early_stopping.first_epoch, run.epoch)
    if run.trajectory and "trajectory" in known:
        run.trajectory.restore(known["trajectory"])
        if TrajectoryOption.parse(run.options.trajectory).every is None:
            run.trajectory.every = known["trajectory"]["every"].integer(1)
