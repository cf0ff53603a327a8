"""From a data set's name to its three splits."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from .bundle import DataBundle
from .errors import DatasetError
from .raw import RawData, RawPart, find_reader
from .selection import divide
from .settings import Settings
from .sources import LUMA, FileImages, Shape, Source, TensorImages, file_shape, fit_tensor
from .split import Recipe, Split

PHOTO_SIDE = 128  # inputs of at least this size are cut from larger canvases, as is usual for photographs
PHOTO_MARGIN = 256 / 224


def load_dataset(name: str, folder: str | Path | None = None, **settings: Any) -> DataBundle:
    """Read a data set, split it, and prepare it for a model.

    Args:
        name: one of `dataset_names()`.
        folder: where its files are, for those that need some.
        settings: the fields of `Settings`: validation_split, seed, input_shape, workers, limit_train, limit_validation,
            limit_test, share_train, share_validation, share_test, mean, std, indices, augmentation, normalise,
            num_classes, download, memory_limit.

    Raises:
        DatasetError: (a ValueError) unknown name, missing or damaged data, or data that do not fit the model.
        TypeError: an unknown setting.
    """
    chosen = Settings(**settings)
    raw = find_reader(name)(None if folder is None else Path(folder).expanduser(), chosen)
    _check_classes(name, raw, chosen.num_classes)
    division = divide(raw, chosen)
    shape = chosen.input_shape or raw.input_shape
    native = _native_shape(raw.train)
    canvas = _canvas(native, shape, photographs=not isinstance(raw.train.images, Tensor))
    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    if chosen.normalise:
        mean = _statistics(raw.mean, shape[0]) if chosen.mean is None else _given("mean", chosen.mean, shape[0])
        std = _statistics(raw.std, shape[0]) if chosen.std is None else _given("std", chosen.std, shape[0])
    fixed = Recipe(shape[1:], mean, std)
    varied = Recipe(shape[1:], mean, std, chosen.augmentation or raw.augmentation)

    def split(part: RawPart, recipe: Recipe, shuffle_seed: int | None = None, share: float = 1.0) -> Split:
        source = _source(part, canvas, chosen.memory_limit)
        return Split(source, part.labels, recipe, shuffle_seed=shuffle_seed, workers=chosen.workers, share=share)

    test = split(division.test, fixed)
    return DataBundle(
        name=name,
        train=split(division.train, varied, chosen.seed, chosen.share_train),
        validation=test if division.validation is division.test else split(division.validation, fixed),
        test=test,
        classes=raw.classes,
        input_shape=shape,
        split_indices=division.held_out,
        mean=mean,
        std=std,
        validation_is_test=division.validation_is_test,
        split_names=tuple(raw.train.names[i] for i in division.held_out) if raw.train.names else (),
        files=sha256("\n".join(raw.train.names).encode()).hexdigest() if raw.train.names else "",
        notes=_notes(native, shape, canvas, division.validation_is_test),
    )


def _check_classes(name: str, raw: RawData, num_classes: int | None) -> None:
    count = len(raw.classes)
    if count < 2:
        raise DatasetError(f"{name}: a classifier needs at least two classes, found {raw.classes}")
    for part, data in (("training", raw.train), ("test", raw.test), ("validation", raw.validation)):
        if data is None:
            continue
        if len(data.labels) == 0:
            raise DatasetError(f"{name}: there are no {part} images")
        low, high = int(data.labels.min()), int(data.labels.max())
        if low < 0 or high >= count:
            raise DatasetError(f"{name}: the {part} labels run from {low} to {high}, but there are {count} classes")
    if num_classes is not None and num_classes != count:
        raise DatasetError(f"{name} has {count} classes and the model {num_classes}: they must be the same")


def _native_shape(part: RawPart) -> Shape:
    if isinstance(part.images, Tensor):
        channels, height, width = part.images.shape[1:]
        return channels, height, width
    return file_shape(part.images[0])


def _canvas(native: Shape, shape: Shape, photographs: bool) -> Shape:
    """Return the size that images are kept in: the model's, or for large photographs 8/7 of it, to cut crops from."""
    height, width = (round(side * PHOTO_MARGIN) for side in shape[1:])
    if photographs and min(shape[1:]) >= PHOTO_SIDE and native[1] >= height and native[2] >= width:
        return shape[0], height, width
    return shape


def _source(part: RawPart, canvas: Shape, memory_limit: int) -> Source:
    if isinstance(part.images, Tensor):
        return TensorImages(fit_tensor(part.images, canvas))
    if canvas[0] not in {1, 3}:
        raise DatasetError(f"image files have 1 or 3 channels and the model reads {canvas[0]}")
    files = FileImages(part.images, canvas)
    size = len(files) * canvas[0] * canvas[1] * canvas[2]
    return files.in_ram() if size <= memory_limit else files


def _statistics(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return mean or deviation for another number of channels; a colour's share in grey is its luma weight."""
    if len(values) == channels:
        return values
    if len(values) == len(LUMA) and channels == 1:
        return (sum(value * weight for value, weight in zip(values, LUMA, strict=True)),)
    return (sum(values) / len(values),) * channels


def _given(what: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return what was asked for, of each channel.

    Raises:
        DatasetError: there are as many numbers as the images have no channels.
    """
    if len(values) not in (1, channels):
        raise DatasetError(f"{what} has {len(values)} numbers, but the images have {channels} channels")
    return tuple(values) if len(values) == channels else (values[0],) * channels


def _notes(native: Shape, shape: Shape, canvas: Shape, validation_is_test: bool) -> tuple[str, ...]:
    notes = []
    if native[0] != shape[0]:
        grey = shape[0] == 1
        notes.append("colour images turned to grey" if grey else f"grey images repeated in {shape[0]} channels")
    if native[1:] != canvas[1:]:
        notes.append(f"images resized from {native[1]}x{native[2]} to {canvas[1]}x{canvas[2]}")
    if canvas != shape:
        notes.append(f"{shape[1]}x{shape[2]} cut out of them")
    if validation_is_test:
        notes.append("validation runs on the test images")
    return tuple(notes)
