"""Where a split's canvases come from: a tensor in memory, or files that are decoded when they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from .errors import DatasetError

Shape = tuple[int, int, int]
DECODE_CHUNK = 256
RESIZE_CHUNK = 1024
LARGE = 2**24
"""Pixels above which one image at a time is decoded: Pillow takes up to 179 millions, of 8 bytes while it converts."""
_large = Lock()
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's conversion to grey


class Source(Protocol):
    """N images, all of one shape."""

    in_memory: bool

    def __len__(self) -> int: ...

    def load(self, indices: Tensor) -> Tensor:
        """Return uint8 (len(indices), C, H, W)."""
        ...


class TensorImages:
    """Images held in memory as uint8."""

    in_memory = True

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def load(self, indices: Tensor) -> Tensor:
        """Return a copy of the images asked for."""
        return self.images[indices]


class FileImages:
    """Image files, decoded, cut to the canvas' aspect ratio and resized at every access."""

    in_memory = False

    def __init__(self, paths: Sequence[Path], canvas: Shape) -> None:
        self.paths = paths
        self.canvas = canvas

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, indices: Tensor) -> Tensor:
        """Decode the images asked for.

        Raises:
            DatasetError: a file is not a readable image; names it.
        """
        return torch.from_numpy(np.stack([read_image(self.paths[i], self.canvas) for i in indices.tolist()]))

    def in_ram(self) -> TensorImages:
        """Decode everything once, with threads (PIL decodes and resizes outside the interpreter's lock)."""
        images = torch.empty(len(self), *self.canvas, dtype=torch.uint8)

        def fill(chunk: Tensor) -> None:
            images[chunk[0] : chunk[-1] + 1] = self.load(chunk)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(fill, torch.arange(len(self)).split(DECODE_CHUNK)))
        return TensorImages(images)


def read_image(path: Path, shape: Shape) -> np.ndarray:
    """Decode a file to uint8 (C, H, W), grey for one channel, colour for three.

    Raises:
        DatasetError: the file is not a readable image.
    """
    channels, height, width = shape
    with _opened(path) as file, _large if file.width * file.height > LARGE else nullcontext():
        image = file.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def file_shape(path: Path) -> Shape:
    """Return (channels, height, width) of an image file, from its header; three channels unless it is grey.

    Raises:
        DatasetError: the file is not a readable image.
    """
    with _opened(path) as file:
        return (1 if file.mode in {"1", "L", "I", "I;16", "F"} else 3, file.height, file.width)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever is wrong with it is the fault of that file.

    Raises:
        DatasetError: the file is not a readable image.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("it is no regular file")
        with Image.open(path) as file:
            yield file
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # decoders of many formats fail in many ways
        raise DatasetError(f"{path}: not a readable image ({error}); replace or delete it") from error


def fit_tensor(images: Tensor, shape: Shape) -> Tensor:
    """Turn uint8 images (N, C, H, W) into `shape`: grey to colour or back, and resized bilinearly with antialiasing.

    Raises:
        DatasetError: neither of the two channel counts is 1 while they differ, or the other one is not 3.
    """
    channels = images.shape[1]
    if channels != shape[0] and {channels, shape[0]} != {1, 3}:
        raise DatasetError(f"the images have {channels} channels, the model reads {shape[0]}: no way to convert them")
    if channels == 3 and shape[0] == 1:
        weights = torch.tensor(LUMA).view(1, 3, 1, 1)
        grey = [(part * weights).sum(1, keepdim=True).round().byte() for part in images.split(RESIZE_CHUNK)]
        images = torch.cat(grey)
    if images.shape[2:] != shape[1:]:
        images = torch.cat([_resize(part, shape[1:]) for part in images.split(RESIZE_CHUNK)])
    return images.expand(-1, shape[0], -1, -1).contiguous()


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    resized = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).byte()
