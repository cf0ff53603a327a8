"""One run: everything that training needs, put together from the options and, on a resume, from a checkpoint."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from potstill.compression import CompressionScheduler, save_checkpoint
from potstill.models.datasets import DataBundle

from ..monitors.early_stopping import EarlyStopping
from ..monitors.tensorboard import EventWriter
from ..monitors.trajectory import Trajectory
from .best_epochs import BestEpochs
from .checkpoint_interval import Interval
from .evaluation import Meter
from .finite import check_network
from .folder import RunFolder
from .randomness import random_state

logger = logging.getLogger("potstill")

OF_THIS_CALL = ("dataset_given",)
"""Options that a run which goes on has otherwise, though it is the same run."""


@dataclass
class Session:
    """A run in progress.

    `epoch` and `minibatch` are what comes next, `rate` is the learning rate of this epoch. `trained` says whether it
    began with trained weights, `interval` when the next checkpoint within an epoch is due.
    """

    options: argparse.Namespace
    folder: RunFolder
    device: torch.device
    data: DataBundle
    model: nn.Module
    optimizer: Optimizer
    scheduler: CompressionScheduler
    epochs: int
    epoch: int = 0
    minibatch: int = 0
    meter: Meter = field(default_factory=Meter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: BestEpochs = field(default_factory=BestEpochs)
    dense_top1: float | None = None
    trained: bool = False
    interval: Interval = field(default_factory=Interval)
    rate: float = 0.0
    stop: bool = False
    events: EventWriter | None = None
    early_stopping: EarlyStopping | None = None
    trajectory: Trajectory | None = None

    @property
    def example(self) -> Tensor:
        """What the network is called with: the inputs that channels were traced with."""
        return self.scheduler.example_inputs

    @property
    def minibatches(self) -> int:
        """Minibatches of an epoch."""
        return self.data.train.batch_count(self.options.batch_size)

    @property
    def ended(self) -> bool:
        """Whether early stopping ended the training."""
        return self.early_stopping is not None and self.early_stopping.reason is not None

    def stepped(self) -> None:
        """The optimizer made its step, and masks are applied: count the minibatch, and record the trajectory."""
        self.minibatch += 1
        if self.trajectory is not None:
            self.trajectory.after_step(self.steps)

    @property
    def steps(self) -> int:
        """Optimizer steps done since the start of training."""
        return self.epoch * self.minibatches + self.minibatch

    def compresses_from(self, epoch: int) -> bool:
        """Whether something that compresses begins to act in this epoch, and nothing did before."""
        acting = [policy for policy in self.scheduler.policies if policy.compresses]
        starts = [p.window.start // (1 if p.window.unit == "epoch" else self.minibatches) for p in acting]
        return bool(starts) and min(starts) == epoch

    def state(self) -> dict[str, Any]:
        """The checkpoint's contents: tensors and plain data."""
        plain = {k: _plain(v) for k, v in vars(self.options).items() if k not in OF_THIS_CALL}
        return {
            "epoch": self.epoch,
            "minibatch": self.minibatch,
            "arch": self.options.arch,
            "num_classes": len(self.data.classes),
            "input_shape": list(self.data.input_shape),
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": self.options.optimizer,
            "scheduler": self.scheduler.state_dict(),
            "split": list(self.data.split_indices),
            "meter": asdict(self.meter),
            "rows": self.rows,
            "best": self.best.state(),
            "dense_top1": self.dense_top1,
            "trained": self.trained,
            "options": plain,
            "random": random_state(),
            "early_stopping": self.early_stopping.state() if self.early_stopping else None,
            "trajectory": self.trajectory.state() if self.trajectory else None,
        }

    def save(self, path: Path | None = None) -> None:
        """Write a checkpoint, and first the trajectory up to it.

        Raises:
            TrainingError: the network has values that are not finite.
            CheckpointError: it cannot be written.
        """
        check_network(self.model)
        if self.trajectory is not None:
            self.trajectory.write(self.folder.path)
        save_checkpoint(path or self.folder.checkpoint, self.state())
        if path is None:
            self.folder.lead()
        self.interval.restart()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
