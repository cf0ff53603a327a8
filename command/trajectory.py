"""`--trajectory`: records chosen parameters during training into one compact file.

Small parameters are recorded whole; of large ones the Euclidean norm, the mean, and a sample of coordinates that
follows from the parameter's name and size alone. The first record is the state before training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from potstill.compression.checkpoints import write_atomically
from potstill.compression.names import resolve

from .probe import Probe

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
        """Steps between two records of a run of `total` steps."""
        return self.every or max(EVERY, -(-total // MOST))


class Trajectory:
    """The records of a run.

    Values stay on the parameters' device until the file is written, so that recording does not wait for a GPU.

    Attributes:
        every: steps between two records.
        steps: optimizer steps done at each record.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str], every: int = EVERY) -> None:
        """Choose parameters by names and patterns.

        Raises:
            UnknownName: a name or pattern fits no parameter.
        """
        parameters = dict(model.named_parameters())
        self.every = every
        self.steps: list[int] = []
        self._probes = [Probe(name, parameters[name]) for name in resolve(patterns, model)]
        self._records = torch.empty(0, sum(probe.width for probe in self._probes))
        self._fresh: list[Tensor] = []

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
        """All records by name, T of each: `steps` (T,) int64, and what `Probe.tensors` says."""
        self._records = torch.cat([self._records, *(row[None].cpu() for row in self._fresh)])
        self._fresh.clear()
        columns = self._records.split([probe.width for probe in self._probes], dim=1)
        named = {"steps": torch.tensor(self.steps, dtype=torch.int64)}
        for probe, values in zip(self._probes, columns, strict=True):
            named |= probe.tensors(values)
        return {name: tensor.contiguous() for name, tensor in named.items()}

    def write(self, folder: Path) -> None:
        """Write the file anew if there is something new.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self._fresh:
            contents = save(self.tensors(), {"format": "potstill trajectory 1"})
            write_atomically(folder / FILE, lambda file: file.write(contents) and None)

    def state(self) -> dict[str, Any]:
        """How many of the file's records belong to a checkpoint: those after it are made again by a resumed run."""
        return {"every": self.every, "records": len(self.steps), "shapes": self._shapes()}

    def restore(self, state: Mapping[str, Any], folder: Path) -> None:
        """Go on where a run stood; warns and begins anew where its records are missing or of other parameters."""
        path = folder / FILE
        if state["shapes"] != self._shapes():
            logger.warning("the trajectory begins anew: the one so far is of other parameters or shapes")
            return
        try:
            tensors = load_file(path)
            records = torch.cat([probe.columns(tensors) for probe in self._probes], dim=1)[: state["records"]]
            steps = tensors["steps"][: state["records"]].tolist()
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            logger.warning("the trajectory begins anew: %s cannot be read (%s)", path, str(error) or "nothing there")
            return
        self._records, self.steps = records, steps

    def _shapes(self) -> dict[str, list[int]]:
        return {probe.name: list(probe.shape) for probe in self._probes}
