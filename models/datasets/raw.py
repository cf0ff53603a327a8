"""What a reader of a data set gives, and the names of the readers.

A data set is one function with a decorator::

    @register_dataset("my_set")
    def read(folder: Path | None, settings: Settings) -> RawData:
        ...

It says where the images and labels are. Splitting, decoding, resizing, normalising, shuffling and augmenting are done
for all data sets alike by `load_dataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from potstill.near_names import did_you_mean

from ..registered_again import is_same
from .errors import DatasetError
from .settings import Settings


@dataclass(frozen=True)
class RawPart:
    """Images, a uint8 tensor (N, channels, height, width) or N files, and their int64 labels (N,).

    `names` are those of the files within their folder, by which they are found again when others came or went.
    """

    images: Tensor | Sequence[Path]
    labels: Tensor
    names: Sequence[str] = ()

    def subset(self, indices: Sequence[int]) -> RawPart:
        """Return the images at these positions, with their labels."""
        chosen = torch.tensor(indices, dtype=torch.int64)
        images = self.images[chosen] if isinstance(self.images, Tensor) else [self.images[i] for i in indices]
        return RawPart(images, self.labels[chosen], [self.names[i] for i in indices] if self.names else ())


@dataclass(frozen=True)
class RawData:
    """A data set before it is split and prepared.

    `mean` and `std` are per channel, of values in [0, 1]. `input_shape` is the size to use when no model asks for
    another. `validation` is set where the data set brings its own validation images. With `holdout` False the training
    images are never split, and validation runs on the test images.
    """

    classes: list[str]
    train: RawPart
    test: RawPart
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    validation: RawPart | None = None
    holdout: bool = True


Reader = Callable[[Path | None, Settings], RawData]
ClassCount = int | Callable[[Path | None], int | None]
_readers: dict[str, Reader] = {}
_class_counts: dict[str, ClassCount | None] = {}


def register_dataset(name: str, num_classes: ClassCount | None = None) -> Callable[[Reader], Reader]:
    """Make a reader known by name.

    Args:
        name: what `load_dataset` and `--dataset` call it.
        num_classes: the number of classes, or what counts them in a folder, where that needs no reading of images: what
            is shown without data (`--dry-run`, `--summary`) is then the network that a training would have.

    Raises:
        DatasetError: the name is taken by another reader.
    """

    def enter(reader: Reader) -> Reader:
        taken = _readers.get(name)
        if taken is not None and not is_same(taken, reader):
            raise DatasetError(f"data set name {name!r} is already taken by {taken.__module__}; choose another")
        _readers[name], _class_counts[name] = reader, num_classes
        return reader

    return enter


def dataset_names() -> list[str]:
    """Return all names that `load_dataset` takes, sorted."""
    return sorted(_readers)


def class_count(name: str, folder: Path | None = None) -> int | None:
    """Return the number of a data set's classes where it is known without reading images, or None."""
    known = _class_counts.get(name)
    return known(folder.expanduser() if folder else None) if callable(known) else known


def find_reader(name: str) -> Reader:
    """Return the reader of a data set.

    Raises:
        DatasetError: no data set has this name.
    """
    if name not in _readers:
        hint = did_you_mean(name, dataset_names(), 3) or f"; there are {', '.join(dataset_names())}"
        raise DatasetError(f"no data set is called {name!r}{hint}")
    return _readers[name]
