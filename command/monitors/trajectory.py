"""`--trajectory`: records chosen parameters during training into one compact file.

Small parameters are recorded whole; of large ones the Euclidean norm, the mean, and a sample of coordinates that
follows from the parameter's name and size alone. The first record is the state before training.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from potstill.compression.declare.names import resolve
from potstill.compression.files.checked import Field
from potstill.compression.files.checkpoints import write_atomically

from .trajectory_record import Probe

logger = logging.getLogger("potstill")

FILE = "trajectory.safetensors"
EVERY, MOST = 10, 1000
"""By default a record each 10 steps, or fewer so that a run has about 1,000."""


@dataclass(frozen=True)
class TrajectoryOption:
    """`PATTERN[,PATTERN...][:EVERY]`: the parameters and, where it is said, the steps between two records."""

    patterns: tuple[str, ...]
    every: int | None = None

    @classmethod
    def parse(cls, text: str) -> TrajectoryOption:
        """Read the option.

        Raises:
            ValueError: a pattern is empty, or EVERY is not a whole number of 1 or more.
        """
        names, colon, every = text.partition(":")
        if not all(names.split(",")) or (colon and not (every.isdecimal() and int(every))):
            raise ValueError(f"{text!r} is not PATTERN[,PATTERN...][:EVERY] with EVERY a whole number of 1 or more")
        return cls(tuple(names.split(",")), int(every) if colon else None)

    def interval(self, total: int) -> int:
        """Return steps between two records of a run of `total` steps."""
        return self.every or max(EVERY, -(-total // MOST))


class Trajectory:
    """The records of a run.

    Values stay on the parameters' device until the file is written, so that recording does not wait for a GPU.

    Attributes:
        every: steps between two records.
        steps: optimizer steps done at each record.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str], every: int = EVERY, fixed: bool = True) -> None:
        """Choose parameters by names and patterns; unless it is fixed, `every` is what a run that goes on had.

        Raises:
            UnknownName: a name or pattern fits no parameter.
        """
        parameters = dict(model.named_parameters())
        self.every, self._fixed = every, fixed
        self.steps: list[int] = []
        self._probes = [Probe(name, parameters[name]) for name in resolve(patterns, model)]
        self._records = torch.empty(0, sum(probe.width for probe in self._probes))
        self._fresh: list[Tensor] = []
        self._written = 0

    def after_step(self, step: int) -> None:
        """Record if it is time; `step` is the number of optimizer steps done."""
        if step % self.every == 0:
            self.record(step)

    @torch.no_grad()
    def record(self, step: int) -> None:
        """Record the parameters as they are now."""
        self._fresh.append(torch.cat([part for probe in self._probes for part in probe.read()]))
        self.steps.append(step)

    def tensors(self) -> dict[str, Tensor]:
        """Return all records by name, T of each: `steps` (T,) int64, and what `Probe.tensors` says."""
        columns = self._gathered().split([probe.width for probe in self._probes], dim=1)
        named = {"steps": torch.tensor(self.steps, dtype=torch.int64)}
        for probe, values in zip(self._probes, columns, strict=True):
            named |= probe.tensors(values)
        return {name: tensor.contiguous() for name, tensor in named.items()}

    def write(self, folder: Path) -> None:
        """Write the file anew if there is something new.

        It is replaced at once, but not forced onto the disk, which would take longer than recording: the records that
        must not be lost are those in the checkpoint.

        Raises:
            CheckpointError: it cannot be written.
        """
        if len(self.steps) == self._written:
            return
        content = save(self.tensors(), {"format": "potstill trajectory 1"})
        write_atomically(folder / FILE, content, durable=False)
        self._written = len(self.steps)

    def state(self) -> dict[str, Any]:
        """Return all records, for a checkpoint."""
        return {"every": self.every, "shapes": self._shapes(), "steps": self.steps, "records": self._gathered()}

    def restore(self, state: Field) -> None:
        """Go on with what `state` gave; begins anew, with a warning, where it is of other parameters.

        Raises:
            CheckpointError: it is damaged.
        """
        if not self._fixed:
            self.every = state["every"].integer(1)
        if state["shapes"].value != self._shapes():
            logger.warning("the trajectory begins anew: the one so far is of other parameters or shapes")
            return
        self.steps = [step.integer() for step in state["steps"].items()]
        shape = (len(self.steps), self._records.shape[1])
        self._records = state["records"].tensor(shape, torch.float32, finite=False)
        self._fresh.clear()

    def _gathered(self) -> Tensor:
        """Return all records, one a row, on the CPU."""
        self._records = torch.cat([self._records, *(row[None].cpu() for row in self._fresh)])
        self._fresh.clear()
        return self._records

    def _shapes(self) -> dict[str, list[int]]:
        return {probe.name: list(probe.shape) for probe in self._probes}
