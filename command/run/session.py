"""One run: everything that training needs, put together from the options and, on a resume, from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from potstill.compression import CompressionScheduler, save_checkpoint
from potstill.compression.files.checked import Field
from potstill.compression.processes.ranks import Ranks
from potstill.models import ModelInfo
from potstill.models.datasets import DataBundle

from ..cli.options import Options
from ..monitors.activation_stats import ActivationStats
from ..monitors.checkpoint_interval import Interval
from ..monitors.early_stopping import EarlyStopping
from ..monitors.tensorboard import EventWriter
from ..monitors.trajectory import Trajectory
from .averages import TrainingWeights, average_of, network_of
from .best_epochs import BestEpochs
from .changed_options import surroundings
from .clock import Clock
from .evaluation import Meter
from .finite import check_network
from .folder import RunFolder
from .local_state import local_states, pooled, restore_local
from .network_size import SizeMeter
from .randomness import Randomness
from .ranks import Agreement, leads, wrapped
from .run_state import OptimizerPiece, Piece, Rows, SchedulerPiece

logger = logging.getLogger("potstill")


@dataclass
class Session:
    """A run in progress.

    `epoch` and `minibatch` are what comes next, `rate` is the learning rate of this epoch. `trained` says whether it
    began with trained weights, `interval` when the next checkpoint within an epoch is due, `stop` whether this process
    was asked to stop, `agreed` whether all know it.
    """

    options: Options
    folder: RunFolder
    device: torch.device
    info: ModelInfo
    data: DataBundle
    model: nn.Module
    optimizer: Optimizer
    scheduler: CompressionScheduler
    epochs: int
    epoch: int = 0
    minibatch: int = 0
    meter: Meter = field(default_factory=Meter)
    rows: Rows = field(default_factory=Rows)
    best: BestEpochs = field(default_factory=BestEpochs)
    dense_top1: float | None = None
    dense_val_top1: float | None = None
    trained: bool = False
    interval: Interval = field(default_factory=Interval)
    rate: float = 0.0
    clock: Clock = field(default_factory=Clock)
    stop: bool = False
    agreed: bool = False
    events: EventWriter | None = None
    early_stopping: EarlyStopping | None = None
    trajectory: Trajectory | None = None
    activation_stats: ActivationStats = field(default_factory=ActivationStats)

    @contextmanager
    def watching(self, phase: str) -> Iterator[None]:
        """Gather statistics of activations, and write them at the end, where `--act-stats` names the phase."""
        if phase not in self.options.output.act_stats:
            yield
            return
        with self.activation_stats.watching(self.model, training=phase == "train"):
            yield
        if leads():
            self.activation_stats.write(self.folder.path, phase)

    def __post_init__(self) -> None:
        """Wrap the network where there are several processes, now and when its shapes change."""
        self.agreement = Agreement(self.ranks, 2)
        self.scheduler.rewrap = self.wrap
        self.wrap()

    @property
    def ranks(self) -> Ranks:
        """The processes of the run."""
        return self.scheduler.ranks

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """Return the run itself: a copied network may lead here by its hooks."""
        return self

    def wrap(self) -> None:
        """Make what the loop calls: `network`."""
        self.network = wrapped(self.model, self.ranks)

    def weight(self, images: int) -> float:
        """Return the weight of this process's mean loss, by which the mean over all processes is the batch's."""
        if self.ranks.size == 1:
            return 1.0
        whole = self.data.train.batch_length(self.options.training.batch_size, self.minibatch)
        return images * self.ranks.size / whole

    @property
    def stopped(self) -> bool:
        """Return whether the run is to stop, as all processes know it."""
        return self.stop if self.ranks.size == 1 else self.agreed

    def checkpoint_is_due(self) -> bool:
        """Return whether a checkpoint is due, and whether to stop (see `stopped`), as all processes know it."""
        over = self.interval.is_over(self.minibatch)
        self.agreed, due = self.agreement.post([self.stop, leads() and over])
        return due if self.interval.seconds is not None else over

    def stops(self) -> bool:
        """Return whether some process was asked to stop: a message that all wait for."""
        self.agreement.settle()
        return bool(self.ranks.largest([int(self.stop)])[0])

    @property
    def example(self) -> Tensor:
        """Return what the network is called with: the inputs that channels were traced with."""
        return self.scheduler.example_inputs

    @property
    def minibatches(self) -> int:
        """Minibatches of an epoch."""
        return self.data.train.batch_count(self.options.training.batch_size)

    @property
    def ended(self) -> bool:
        """Return whether early stopping ended the training."""
        return self.early_stopping is not None and self.early_stopping.reason is not None

    def stepped(self) -> None:
        """Count the minibatch, whose step is made and whose masks are applied, and record the trajectory."""
        self.minibatch += 1
        if self.trajectory is not None:
            self.trajectory.after_step(self.steps)

    @property
    def steps(self) -> int:
        """Optimizer steps done since the start of training."""
        return self.epoch * self.minibatches + self.minibatch

    @cached_property
    def sizes(self) -> SizeMeter:
        """Return what measures zeros and gone."""
        return SizeMeter(self.scheduler)

    def compressed_by(self, epoch: int) -> bool:
        """Return whether all that compresses has acted for the last time by the end of this epoch."""
        acting = [policy for policy in self.scheduler.policies if policy.compresses]
        return all(p.window.end <= (epoch + 1) * (1 if p.window.unit == "epoch" else self.minibatches) for p in acting)

    def compresses_from(self, epoch: int) -> bool:
        """Return whether something that compresses begins to act in this epoch, and nothing did before."""
        acting = [policy for policy in self.scheduler.policies if policy.compresses]
        return min((p.window.epoch_of(p.window.start, self.minibatches) for p in acting), default=None) == epoch

    def pieces(self) -> dict[str, Piece]:
        """Return the parts of the state that keep themselves, by their names in a checkpoint."""
        found: dict[str, Piece | None] = {
            "scheduler": SchedulerPiece(self.scheduler),
            "optimizer": OptimizerPiece(self.optimizer),
            "rows": self.rows,
            "best": self.best,
            "early_stopping": self.early_stopping,
            "trajectory": self.trajectory,
            "training_weights": TrainingWeights(self.scheduler) if average_of(self.scheduler) else None,
        }
        return {name: piece for name, piece in found.items() if piece is not None}

    def state(self) -> dict[str, Any]:
        """Return the checkpoint's contents: tensors and plain data."""
        return {
            "epoch": self.epoch,
            "minibatch": self.minibatch,
            "arch": self.options.data.arch,
            "config": None if self.info.config is None else dict(self.info.config),
            "num_classes": len(self.data.classes),
            "classes": list(self.data.classes),
            "input_shape": list(self.data.input_shape),
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "state_dict": network_of(self.scheduler),
            "optimizer_name": self.options.training.optimizer,
            "split": list(self.data.split_indices),
            "split_names": list(self.data.split_names),
            "surroundings": surroundings(self.data),
            "dense_top1": self.dense_top1,
            "dense_val_top1": self.dense_val_top1,
            "trained": self.trained,
            "options": self.options.kept(),
            "early_stopping": None,
            "trajectory": None,
            "training_weights": None,
            **{name: piece.state() for name, piece in self.pieces().items()},
            "meter": pooled(self.meter, self.ranks).state(),
            "random": Randomness().state(),
            **local_states(self.meter, self.ranks),
        }

    def restore(self, state: Field) -> None:
        """Take back what `state` gave, but for the weights, which the network was built with.

        Raises:
            CheckpointError: a field is missing or not what it should be.
        """
        self.epoch = state["epoch"].integer(most=2**31)
        self.minibatch = state["minibatch"].integer(most=self.minibatches)
        self.dense_top1 = _known(state["dense_top1"])
        self.dense_val_top1 = _known(state["dense_val_top1"]) if "dense_val_top1" in state.value else None
        self.trained = state["trained"].flag()
        pieces, theirs = self.pieces(), state["optimizer_name"].text()
        if theirs != self.options.training.optimizer:
            logger.warning(
                "the checkpoint's optimizer is %s: %s starts afresh", theirs, self.options.training.optimizer
            )
            del pieces["optimizer"]
        for name, piece in pieces.items():
            if name in state.value and state[name].value is not None:
                piece.restore(state[name])
        self.meter.restore(state["meter"])
        if state["random"].value is not None:
            Randomness().restore(state["random"])
        restore_local(self.meter, state, self.ranks, self.options.training.seed)
        if self.early_stopping and state["early_stopping"].value is None:
            self.early_stopping.begin_at(self.epoch)

    def save(self, path: Path | None = None) -> None:
        """Write a checkpoint, and first the trajectory up to it.

        Raises:
            TrainingError: the network has values that are not finite.
            CheckpointError: it cannot be written.
        """
        check_network(self.model)
        state = self.state()
        if leads():
            if self.trajectory is not None:
                self.trajectory.write(self.folder.path)
            save_checkpoint(path or self.folder.checkpoint, state)
        if path is None:
            self.folder.lead()
        self.interval.restart()


def _known(value: Field) -> float | None:
    """Return a number that may not be known."""
    return None if value.value is None else value.number()
