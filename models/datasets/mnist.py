"""MNIST (LeCun et al. 1998): 60,000 training and 10,000 test images of handwritten digits, 28x28, grey.

The four files of the original are looked for in the folder itself, in `raw/` and in `MNIST/raw/` (where torchvision
puts them), packed (`.gz`) or not.
"""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import MNIST

from .errors import DatasetError
from .idx import read_idx
from .raw import RawData, RawPart, register_dataset
from .settings import Settings

PLACES = (".", "raw", "MNIST/raw")
MEAN, STD = (0.1307,), (0.3081,)


@register_dataset("mnist", num_classes=10)
def read(folder: Path | None, settings: Settings) -> RawData:
    """MNIST from its four idx files."""
    if folder is None:
        raise DatasetError("mnist needs a folder with MNIST/raw/train-images-idx3-ubyte and the three other files")
    if settings.download:
        _download(folder)
    return RawData(
        classes=[str(digit) for digit in range(10)],
        train=_read_part(folder, "train"),
        test=_read_part(folder, "t10k"),
        input_shape=(1, 28, 28),
        mean=MEAN,
        std=STD,
        augmentation="none",
    )


def _download(folder: Path) -> None:
    try:
        MNIST(str(folder), download=True)
    except (RuntimeError, OSError) as error:
        raise DatasetError(f"mnist could not be downloaded to {folder}: {error}") from error


def _read_part(folder: Path, prefix: str) -> RawPart:
    images_file = _find(folder, f"{prefix}-images-idx3-ubyte")
    labels_file = _find(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_file, dimensions=3), read_idx(labels_file, dimensions=1)
    if len(images) != len(labels):
        raise DatasetError(f"{images_file} has {len(images)} images but {labels_file} has {len(labels)} labels")
    return RawPart(images.unsqueeze(1), labels.long())


def _find(folder: Path, name: str) -> Path:
    for place in PLACES:
        for file in (folder / place / name, folder / place / f"{name}.gz"):
            if file.is_file():
                return file
    looked = ", ".join(str(folder / place) for place in PLACES)
    raise DatasetError(f"no file {name} or {name}.gz in {looked}; name the right folder or allow the download")
