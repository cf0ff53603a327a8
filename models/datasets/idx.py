"""The idx format of MNIST's files: two zero bytes, a type, the number of dimensions, their big-endian sizes, the data.

torchvision has a reader of its own, but it takes unpacked files only and tells a damaged one by a failed assertion.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from .errors import DatasetError

UNSIGNED_BYTE = 0x08
SMALL, RATIO = 2**26, 64
"""Bytes that are read in any case, and beyond them how many for each of the file: MNIST's are packed to a fifth."""


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the bytes of an idx file, packed (`.gz`) or not, as a uint8 tensor.

    Raises:
        DatasetError: the file is damaged or does not have this number of dimensions.
    """
    try:
        with path.open("rb") as packed, cast(IO[bytes], gzip.open(packed)) if path.suffix == ".gz" else packed as file:
            return _read(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged ({error}); fetch it again") from error


def _read(file: IO[bytes], path: Path, dimensions: int) -> Tensor:
    start = file.read(4)
    if start != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise DatasetError(f"{path}: not an idx file of bytes in {dimensions} dimensions (starts {start.hex()})")
    sizes = file.read(4 * dimensions)
    shape = struct.unpack(f">{dimensions}I", sizes) if len(sizes) == 4 * dimensions else (-1,)
    header, size = 4 + len(sizes), math.prod(shape)
    if size > max(SMALL, RATIO * path.stat().st_size):
        raise DatasetError(f"{path}: damaged (its header speaks of {size} bytes, far more than are in it)")
    content = bytearray(file.read(size + 1))
    if len(content) != size:
        found = "more" if len(content) > size else header + len(content)
        raise DatasetError(f"{path}: damaged ({found} bytes, its header speaks of {header + size})")
    return torch.frombuffer(content, dtype=torch.uint8).view(shape) if size else torch.empty(shape, dtype=torch.uint8)
