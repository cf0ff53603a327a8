"""`--ema` and `--warmup-epochs`: policies that options put behind those of the schedule, and what a checkpoint keeps.

Where an average of the weights is kept, it is what the run's checkpoints hold as their network, what is validated,
tested, thinned and exported; training's own weights lie beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from potstill.compression import CompressionScheduler, WarmUp, WeightAverage, Window
from potstill.compression.files.checked import Field
from potstill.compression.schedule import InstancePlan, PolicyPlan, Schedule

from ..cli.training_options import TrainingOptions

AVERAGE, WARM_UP = "--ema", "--warmup-epochs"
"""What the policies of the options are called."""


def with_options(options: TrainingOptions, schedule: Schedule | None, epochs: int) -> Schedule:
    """Return the schedule with what the options ask for behind its policies; `epochs` is where training ends."""
    found = schedule or Schedule({}, [])
    if options.warmup_epochs and epochs:
        found = _with(found, InstancePlan("extensions", WARM_UP, WarmUp, {}), min(options.warmup_epochs, epochs))
    if options.ema is not None and epochs:
        found = _with(found, InstancePlan("extensions", AVERAGE, WeightAverage, {"decay": options.ema}), epochs)
    return found


def _with(schedule: Schedule, instance: InstancePlan, end: int) -> Schedule:
    plan = PolicyPlan("extension", instance.name, Window.between(0, end))
    instances = {**schedule.instances, ("extensions", instance.name): instance}
    return replace(schedule, instances=instances, policies=[*schedule.policies, plan])


def average_of(scheduler: CompressionScheduler) -> WeightAverage | None:
    """Return the policy that keeps an average, of the options or of the schedule."""
    return next((policy for policy in scheduler.policies if isinstance(policy, WeightAverage)), None)


@contextmanager
def averaged(scheduler: CompressionScheduler) -> Iterator[None]:
    """Lend the network its averages, where there are some."""
    average = average_of(scheduler)
    if average is None:
        yield
        return
    with average.applied():
        yield


def take_average(scheduler: CompressionScheduler) -> None:
    """Training is over: the network is the average, where there is one."""
    average = average_of(scheduler)
    if average is not None:
        average.take()


def network_of(scheduler: CompressionScheduler) -> dict[str, Tensor]:
    """Return the state dict of the network that a run shows: the averages, where there are some."""
    average = average_of(scheduler)
    return {**scheduler.model.state_dict(), **({} if average is None else average.averages())}


def keep_average(scheduler: CompressionScheduler, checkpoint: Field) -> None:
    """Go on with the average, under its masks, where a checkpoint's network is one and this run keeps none."""
    if checkpoint.value.get("training_weights") is not None and average_of(scheduler) is None:
        weights = checkpoint["state_dict"].mapping()
        for name in scheduler.masks:
            scheduler.masks.replace(name, weights[name].tensor())


class TrainingWeights:
    """The weights that training goes on with, where the network of the checkpoint is their average."""

    def __init__(self, scheduler: CompressionScheduler) -> None:
        """Take the scheduler, with its network."""
        self.scheduler = scheduler

    def state(self) -> dict[str, Tensor] | None:
        """Return the weights, or None where they are those of the network."""
        average = average_of(self.scheduler)
        return self._model.state_dict() if average is not None and average.averages() else None

    def restore(self, state: Field) -> None:
        """Take back what `state` gave.

        Raises:
            CheckpointError: it is of another network, or has values that are not finite.
        """
        own = self._model.state_dict()
        stored = state.only(own)
        found: dict[str, Any] = {name: stored[name].tensor(t.shape, t.dtype) for name, t in own.items()}
        self._model.load_state_dict(found)

    @property
    def _model(self) -> nn.Module:
        return self.scheduler.model
