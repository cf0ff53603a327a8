"""`--act-stats PHASE ...`: what the outputs of a network's modules look like, as a CSV file for each phase."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from potstill.compression.pruners.follow_activations import only
from potstill.thinning.files.atomic import write_atomically
from potstill.thinning.files.text import csv_text, printable

PHASES = ("train", "valid", "test")


class _Sums:
    """Running sums over the outputs of a module, by channel (dimension 1; of 2-D outputs each feature is one)."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.zeros, self.total, self.absolute, self.squares = torch.zeros(
            4, channels, dtype=torch.float64, device=device
        )
        self.least, self.most = math.inf, -math.inf

    def add(self, output: Tensor) -> None:
        values = output.detach().transpose(0, 1).flatten(1)
        self.count += values.shape[1]
        self.zeros += (values == 0).sum(1)
        values = values.double()
        self.total += values.sum(1)
        self.absolute += values.abs().sum(1)
        self.squares += values.square().sum(1)
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))


class ActivationStats:
    """Gathers statistics of the outputs of all modules without children, while it is `watching`."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, tuple[str, _Sums]] = {}

    @contextmanager
    def watching(self, model: nn.Module, training: bool = False) -> Iterator[None]:
        """Listen to a model's forward passes in training mode, or in the other.

        Thinning, whose passes are no phase of a run, runs copies, and the model itself in evaluation mode.
        """
        leaves = [(name, module) for name, module in model.named_modules() if name and not any(module.children())]
        handles = [module.register_forward_hook(only(module, self._hook(name, training))) for name, module in leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, training: bool) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if module.training is not training:
                return
            if isinstance(output, Tensor) and output.dim() > 1 and output.is_floating_point() and output.numel():
                entry = self._sums.get(name)
                if entry is None or len(entry[1].total) != output.shape[1]:  # new, or thinned since
                    entry = self._sums[name] = (type(module).__name__, _Sums(output.shape[1], output.device))
                entry[1].add(output)

        return hook

    def table(self) -> pd.DataFrame:
        """Return a row for each module (its channel is empty), and one for each of its channels below it.

        `zeros (%)` of a channel is the average percentage of zeros (APoZ, Hu et al. 2016).
        """
        rows: list[dict[str, Any]] = []
        for name, (kind, sums) in self._sums.items():
            channels = len(sums.total)
            whole = _row(name, kind, "", [float(v.sum()) for v in _of(sums)], sums.count * channels)
            rows.append({**whole, "min": sums.least, "max": sums.most})
            values = torch.stack(_of(sums)).T.tolist()
            rows += [_row(name, kind, str(i), value, sums.count) for i, value in enumerate(values)]
        return pd.DataFrame(rows)

    def write(self, folder: Path, phase: str) -> Path:
        """Write `activations_<phase>.csv`, and begin anew."""
        path = folder / f"activations_{phase}.csv"
        table = self.table().astype(object)
        rows = table.where(table.notna(), "").to_numpy().tolist()
        write_atomically(path, csv_text([list(table.columns), *rows]).encode())
        self._sums.clear()
        return path


def _of(sums: _Sums) -> list[Tensor]:
    return [sums.zeros, sums.total, sums.absolute, sums.squares]


def _row(name: str, kind: str, channel: str, sums: list[float], count: int) -> dict[str, Any]:
    zeros, total, absolute, squares = (value / count for value in sums)
    spread = math.sqrt(max(squares - total**2, 0.0))
    named = {"module": printable(name), "type": kind, "channel": channel}
    return {**named, "zeros (%)": 100 * zeros, "mean": total, "mean abs": absolute, "std": spread}
