"""The idx format of MNIST's files: two zero bytes, a type, the number of dimensions, their big-endian sizes, the data.

torchvision has a reader of its own, but it takes unpacked files only and tells a damaged one by a failed assertion.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from .errors import DatasetError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return the bytes of an idx file, packed (`.gz`) or not, as a uint8 tensor.

    Raises:
        DatasetError: the file is damaged or does not have this number of dimensions.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged ({error}); fetch it again") from error
    if content[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
        raise DatasetError(f"{path}: not an idx file of bytes in {dimensions} dimensions (starts {content[:4].hex()})")
    header = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:header]) if len(content) >= header else (-1,)
    if len(content) != header + math.prod(shape):
        raise DatasetError(f"{path}: damaged ({len(content)} bytes, its header speaks of {header + math.prod(shape)})")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
