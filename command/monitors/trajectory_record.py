"""What a trajectory records of one parameter."""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

logger = logging.getLogger("potstill")

WHOLE = 256
"""Parameters of up to so many values are recorded whole."""
SAMPLE = 32
"""Coordinates recorded of each larger one."""


class Probe:
    """Reads a parameter: all of a small one; sample, norm and mean of a large one.

    Attributes:
        name, shape: of the parameter.
        coordinates: the sample's places in the flattened parameter, in rising order; None where it is recorded whole.
        width: values in a record.
    """

    def __init__(self, name: str, parameter: nn.Parameter) -> None:
        """Choose the coordinates: by name and size alone, so that every run of a network has the same."""
        self.name, self.shape = name, parameter.shape
        self._parameter = parameter
        size = parameter.numel()
        self.coordinates = None if size <= WHOLE else sample(name, size)
        self.width = size if self.coordinates is None else len(self.coordinates) + 2
        self._places = None if self.coordinates is None else self.coordinates.to(parameter.device)
        self._told = False

    def read(self) -> list[Tensor]:
        """Return the parts of a record, float32 on the parameter's device; NaN once thinning has changed the shape."""
        values = self._parameter.detach()
        if values.shape != self.shape:
            return [self._lost()]
        if self._places is None:
            return [values.float().flatten()]
        return [values.take(self._places).float(), values.norm().float()[None], values.mean().float()[None]]

    def tensors(self, records: Tensor) -> dict[str, Tensor]:
        """Return records (T, width) by name: `<name>` (T, *shape) where whole, else its parts:

        `<name>/shape`, `<name>/coordinates` (n,) into the flattened parameter (both int64), `<name>/sample` (T, n),
        `<name>/norm` (T,) and `<name>/mean` (T,).
        """
        if self.coordinates is None:
            return {self.name: records.reshape(-1, *self.shape)}
        return {
            f"{self.name}/shape": torch.tensor(self.shape),
            f"{self.name}/coordinates": self.coordinates,
            f"{self.name}/sample": records[:, :-2],
            f"{self.name}/norm": records[:, -2],
            f"{self.name}/mean": records[:, -1],
        }

    def _lost(self) -> Tensor:
        if not self._told:
            logger.warning("trajectory: thinning changed the shape of %s; from here on it is not recorded", self.name)
        self._told = True
        return torch.full((self.width,), torch.nan, device=self._parameter.device)


@dataclass(frozen=True)
class Record:
    """What a trajectory's file has of a parameter over T records: values (T, n), norms and means (T,).

    `coordinates` (n,) are the values' places in the flattened parameter of the given shape.
    """

    shape: tuple[int, ...]
    coordinates: Tensor
    values: Tensor
    norm: Tensor
    mean: Tensor

    def place(self, number: int) -> tuple[int, ...]:
        """Return where in the parameter the value of that number stands."""
        return tuple(int(i) for i in torch.unravel_index(self.coordinates[number], self.shape))

    def moved(self) -> Tensor:
        """Return how far each value went, to and fro (n,)."""
        return self.values.diff(dim=0).abs().nansum(0)


def records(tensors: Mapping[str, Tensor]) -> dict[str, Record]:
    """Return the contents of a trajectory's file by parameter, whole and sampled ones alike."""
    found: dict[str, Record] = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition("/")
        if part == "coordinates":
            shape = tuple(tensors[f"{name}/shape"].tolist())
            values, norm, mean = (tensors[f"{name}/{other}"] for other in ("sample", "norm", "mean"))
            found[name] = Record(shape, tensor, values, norm, mean)
        elif not part and key != "steps":
            values = _rows(tensor)
            places = torch.arange(values.shape[1])
            found[name] = Record(tuple(tensor.shape[1:]), places, values, values.norm(dim=1), values.mean(1))
    return found


def _rows(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]


def sample(name: str, size: int) -> Tensor:
    """Return sorted places of `SAMPLE` values out of `size`, drawn with the name as seed, by no global generator."""
    return torch.tensor(sorted(random.Random(zlib.crc32(name.encode())).sample(range(size), SAMPLE)))
