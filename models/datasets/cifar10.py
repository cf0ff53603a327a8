"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 in ten classes.

Reads either torchvision's form (`cifar-10-batches-py/`, whose pickles torchvision checks against known sums before it
opens them) or folders of images (`train/<class>/*`, `test/<class>/*`). Both number the classes alphabetically.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import CIFAR10

from .errors import DatasetError
from .imagefolder import CIFAR_MEAN, CIFAR_STD, read_folder
from .raw import RawData, RawPart, register_dataset
from .settings import Settings

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@register_dataset("cifar10", num_classes=10)
def read(folder: Path | None, settings: Settings) -> RawData:
    """CIFAR-10, from torchvision's files or from class folders."""
    if folder is None:
        raise DatasetError("cifar10 needs a folder with cifar-10-batches-py/, or train/<class>/* and test/<class>/*")
    if (folder / "train").is_dir():
        raw = read_folder(folder)
        if raw.classes != CLASSES:
            raise DatasetError(f"{folder / 'train'}: its class folders are not CIFAR-10's; read it as imagefolder")
        return raw
    return RawData(
        classes=list(CLASSES),
        train=_read_batches(folder, train=True, download=settings.download),
        test=_read_batches(folder, train=False, download=settings.download),
        input_shape=(3, 32, 32),
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        augmentation="crop_flip",
    )


def _read_batches(folder: Path, train: bool, download: bool) -> RawPart:
    for file in sorted((folder / "cifar-10-batches-py").glob("*")):
        if file.exists() and not file.is_file():  # sums of a pipe or a device are never done
            raise DatasetError(f"{file}: is no regular file; fetch the data set again")
    try:
        data = CIFAR10(str(folder), train=train, download=download)
    except (RuntimeError, OSError) as error:
        raise DatasetError(
            f"{folder}: neither train/<class>/* nor undamaged cifar-10-batches-py/ there ({error}); "
            "name the right folder or allow the download"
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return RawPart(images, torch.tensor(data.targets))
