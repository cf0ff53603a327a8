"""The pieces of a run's state: each gives what a checkpoint keeps of it, and takes it back."""

from __future__ import annotations

from typing import Any, Protocol

from torch.optim import Optimizer

from potstill.compression import CompressionScheduler
from potstill.compression.files.checked import Field, reading
from potstill.compression.files.optimizer_state import load_optimizer_state


class Piece(Protocol):
    """A part of a run that a checkpoint keeps."""

    def state(self) -> Any:
        """Return tensors and plain data."""

    def restore(self, state: Field) -> None:
        """Take back what `state` gave, checked: the file may be a stranger's.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """


class SchedulerPiece:
    """The scheduler: masks, and what policies know."""

    def __init__(self, scheduler: CompressionScheduler) -> None:
        """Take the scheduler."""
        self.scheduler = scheduler

    def state(self) -> dict[str, Any]:
        """Return the scheduler's state."""
        return self.scheduler.state_dict()

    def restore(self, state: Field) -> None:
        """Take back what `state` gave."""
        with reading(state.path):
            self.scheduler.load_state_dict(state.value)


class OptimizerPiece:
    """The optimizer."""

    def __init__(self, optimizer: Optimizer) -> None:
        """Take the optimizer."""
        self.optimizer = optimizer

    def state(self) -> dict[str, Any]:
        """Return the optimizer's state."""
        return self.optimizer.state_dict()

    def restore(self, state: Field) -> None:
        """Take back what `state` gave."""
        load_optimizer_state(self.optimizer, state)


class Rows(list[dict[str, Any]]):
    """The metrics of the epochs so far, a row each."""

    def state(self) -> list[dict[str, Any]]:
        """Return the rows."""
        return list(self)

    def restore(self, state: Field) -> None:
        """Take back what `state` gave."""
        self[:] = [{name: _metric(value) for name, value in row.mapping().items()} for row in state.items()]


def _metric(value: Field) -> Any:
    """Return a value in a row of the metrics: a number, perhaps NaN, or nothing."""
    return value.value if value.value is None or type(value.value) is float else value.number()
