"""Augmentation of whole batches of training images, from uniform numbers that the caller drew.

Each kind needs a number of uniform draws in [0, 1) per image and maps a batch of canvases to images of the model's
size. An image's draws depend on (seed, epoch, image) alone, so neither the batch size, nor the worker that does the
work, nor a resumed run changes what an image looks like.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Augmentation:
    """`apply(images (N, C, H, W) uint8, draws (N, `draws`), (h, w))` gives (N, C, h, w), values still 0 to 255."""

    draws: int
    apply: Callable[[Tensor, Tensor, Size], Tensor]


def centre_crop(images: Tensor, size: Size) -> Tensor:
    """Return the middle of each canvas, as for validation and test images."""
    top, left = ((have - want) // 2 for have, want in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def random_crop(images: Tensor, draws: Tensor, size: Size, padding: int) -> Tensor:
    """Return a window at a random place, draws (N, 2); a canvas of just the size is first padded with black."""
    if tuple(images.shape[-2:]) == size:
        images = F.pad(images, [padding] * 4)
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    rows, columns = windows.shape[2:4]
    top = (draws[:, 0] * rows).long()
    left = (draws[:, 1] * columns).long()
    return windows[torch.arange(len(images)), :, top, left]


def random_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror the images whose draw, of (N,), is below a half."""
    return torch.where((draws < 0.5)[:, None, None, None], images.flip(3), images)


def random_resized_crop(
    images: Tensor, draws: Tensor, size: Size, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Cut a part of random area and aspect ratio at a random place, resize it bilinearly, mirror half.

    The area is uniform in `scale` (parts of the canvas), the logarithm of width / height uniform in `ratio`'s, as in
    Szegedy et al. 2015. A part too wide or too high is cut down to the canvas. The five draws of an image are area,
    aspect ratio, horizontal place, vertical place and mirroring.
    """
    height, width = images.shape[-2:]
    area = height * width * _between(draws[:, 0], *scale)
    aspect = _between(draws[:, 1], math.log(ratio[0]), math.log(ratio[1])).exp()
    w = (area * aspect).sqrt().clamp(max=width) / width
    h = (area / aspect).sqrt().clamp(max=height) / height
    theta = torch.zeros(len(images), 2, 3)  # maps output coordinates in [-1, 1] to canvas coordinates in [-1, 1]
    theta[:, 0, 0] = torch.where(draws[:, 4] < 0.5, -w, w)
    theta[:, 1, 1] = h
    theta[:, 0, 2] = (1 - w) * (2 * draws[:, 2] - 1)
    theta[:, 1, 2] = (1 - h) * (2 * draws[:, 3] - 1)
    grid = F.affine_grid(theta, [len(images), images.shape[1], *size], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _between(draw: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draw


def _crop_flip(images: Tensor, draws: Tensor, size: Size) -> Tensor:
    return random_flip(random_crop(images, draws, size, padding=4), draws[:, 2])


def _shift(images: Tensor, draws: Tensor, size: Size) -> Tensor:
    return random_crop(images, draws, size, padding=2)


def _resized_crop(images: Tensor, draws: Tensor, size: Size) -> Tensor:
    return random_resized_crop(images, draws, size, scale=(0.8, 1.0), ratio=(0.9, 1.1))


def _photo_crop(images: Tensor, draws: Tensor, size: Size) -> Tensor:
    return random_resized_crop(images, draws, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))


def _none(images: Tensor, draws: Tensor, size: Size) -> Tensor:
    return centre_crop(images, size)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(0, _none),
    "shift": Augmentation(2, _shift),
    "crop_flip": Augmentation(3, _crop_flip),
    "resized_crop": Augmentation(5, _resized_crop),
    "photo_crop": Augmentation(5, _photo_crop),
}


def augmentation_names() -> list[str]:
    """Return the kinds of augmentation."""
    return list(AUGMENTATIONS)
