"""What watches a run beside its metrics: early stopping and the trajectory, made from options and from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.compression.names import UnknownName

from .early_stopping import EarlyStopping, first_epoch_to_watch
from .errors import UsageError
from .session import Session
from .stopping_rules import parse_rule
from .trajectory import Trajectory, TrajectoryOption


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
    """Take up what the run of a checkpoint had watched; a watch that is new begins here."""
    if run.early_stopping and checkpoint.get("early_stopping"):
        run.early_stopping.restore(checkpoint["early_stopping"])
    elif run.early_stopping:
        run.early_stopping.first_epoch = max(run.early_stopping.first_epoch, run.epoch)
    state = checkpoint.get("trajectory")
    if run.trajectory and state:
        source: Path = run.options.resume_from
        run.trajectory.restore(state, source if source.is_dir() else source.parent)
        if TrajectoryOption.parse(run.options.trajectory).every is None:
            run.trajectory.every = state["every"]
