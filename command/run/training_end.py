"""Where training ends."""

from __future__ import annotations

from potstill.compression.schedule import Schedule

from ..cli.training_options import TrainingOptions
from ..errors import UsageError

DEFAULT = 90


def end_of_training(options: TrainingOptions, schedule: Schedule | None, minibatches: int | None) -> int:
    """Return the epoch before which training ends: `--epochs`, else the end of the schedule, else 90.

    Args:
        options: of training.
        schedule: what is carried out, if anything.
        minibatches: of an epoch; None where there are no data to tell.

    Raises:
        UsageError: the schedule counts minibatches, and nobody knows how many make an epoch.
    """
    if options.epochs is not None:
        return options.epochs
    windows = [] if schedule is None else [plan.window for plan in schedule.policies]
    if minibatches is None and any(window.unit == "minibatch" for window in windows):
        raise UsageError("the schedule counts minibatches: say with --epochs where training ends")
    return max((window.epoch_of(window.end - 1, minibatches or 1) + 1 for window in windows), default=DEFAULT)
