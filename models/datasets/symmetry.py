"""The symmetry problem of Rumelhart, Hinton and Williams 1986: which of the 64 binary vectors of length 6 read the same
backwards?
"""

from __future__ import annotations

from pathlib import Path

import torch

from .errors import DatasetError
from .raw import RawData, RawPart, register_dataset
from .settings import Settings

LENGTH = 6


@register_dataset("symmetry", num_classes=2)
def read(folder: Path | None, settings: Settings) -> RawData:
    """All 64 vectors as "images" (6, 1, 1) of 0 and 1, for training, validation and test alike.

    8 are symmetric.
    """
    if folder is not None:
        raise DatasetError(f"the symmetry problem is computed and reads no folder: leave {folder} out")
    numbers = torch.arange(2**LENGTH)
    bits = (numbers[:, None] >> torch.arange(LENGTH)) & 1
    labels = (bits == bits.flip(1)).all(1).long()
    vectors = RawPart((255 * bits).byte().view(-1, LENGTH, 1, 1), labels)
    return RawData(
        classes=["asymmetric", "symmetric"],
        train=vectors,
        test=vectors,
        input_shape=(LENGTH, 1, 1),
        mean=(0.0,) * LENGTH,
        std=(1.0,) * LENGTH,
        augmentation="none",
        holdout=False,
    )
