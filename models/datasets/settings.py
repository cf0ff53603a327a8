"""What a caller can choose about a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .augment import augmentation_names
from .errors import DatasetError


@dataclass(frozen=True)
class Settings:
    """The keywords of `load_dataset`.

    Args:
        validation_split: part of the training images set aside for validation, in [0, 1); 0 validates on the test
            images.
        seed: fixes the validation split, the order of the training images and their augmentation.
        input_shape: (channels, height, width) that the model reads; by default the data set's own.
        workers: DataLoader processes, used for sets that are not held in memory.
        limit_train, limit_validation, limit_test: use only so many images, a random sample fixed by the seed.
        share_train: of the training images, drawn anew for each epoch, in (0, 1].
        share_validation, share_test: of these images, a random sample fixed by the seed, in (0, 1].
        mean, std: of each channel, or one number for all, instead of the data set's own; values are in [0, 1].
        indices: validation images by their position in the training set, as `DataBundle.split_indices` of an earlier
            run gave them; `validation_split` then has no say.
        held_out: validation images by their files' names, `DataBundle.split_names` of an earlier run; where
            the data set has files they go before `indices`.
        augmentation: one of `augmentation_names()`; by default the data set's own.
        normalise: subtract the data set's mean and divide by its deviation; False leaves values between 0 and 1.
        num_classes: classes of the model, where one exists already: a difference is an error.
        download: let torchvision fetch the data (mnist and cifar10) if the folder lacks them.
        memory_limit: bytes up to which a split's decoded images are kept in memory.
    """

    validation_split: float = 0.1
    seed: int = 0
    input_shape: tuple[int, int, int] | None = None
    workers: int = 0
    limit_train: int | None = None
    limit_validation: int | None = None
    limit_test: int | None = None
    share_train: float = 1.0
    share_validation: float = 1.0
    share_test: float = 1.0
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    indices: Sequence[int] | None = None
    held_out: Sequence[str] | None = None
    augmentation: str | None = None
    normalise: bool = True
    num_classes: int | None = None
    download: bool = False
    memory_limit: int = 512 * 2**20

    def __post_init__(self) -> None:
        if not 0 <= self.validation_split < 1:
            raise DatasetError(f"validation_split must be at least 0 and below 1, not {self.validation_split:g}")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise DatasetError(f"{name} must not be negative, but is {getattr(self, name)}")
        for name in ("limit_train", "limit_validation", "limit_test"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise DatasetError(f"{name} must be at least 1, not {limit}")
        for name in ("share_train", "share_validation", "share_test"):
            if not 0 < getattr(self, name) <= 1:
                raise DatasetError(f"{name} must be above 0 and at most 1, not {getattr(self, name):g}")
        for value in (*(self.mean or ()), *(self.std or ())):
            if not math.isfinite(value):
                raise DatasetError(f"mean and std are finite numbers, not {value:g}")
        if self.std is not None and min(self.std, default=1.0) <= 0:
            raise DatasetError(f"std must be above 0, not {min(self.std):g}")
        if self.augmentation is not None and self.augmentation not in augmentation_names():
            raise DatasetError(f"no augmentation {self.augmentation!r}; one of {', '.join(augmentation_names())}")
