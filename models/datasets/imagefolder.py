"""Images in folders, one folder a class: `train/<class>/*` and `test/<class>/*` or `val/<class>/*`.

With both `test` and `val`, the latter's images are the validation set and no training image is set aside. Images may
lie deeper inside a class folder. Classes are numbered in the alphabetical order of the training folders.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from .errors import DatasetError
from .raw import RawData, RawPart, register_dataset
from .settings import Settings
from .sources import file_shape

LAYOUT = "train/<class>/* and test/<class>/* or val/<class>/*"
SMALL_SIDE = 64  # images up to this size are augmented as CIFAR's are
CIFAR_SIZE = (32, 32)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def count_classes(folder: Path | None) -> int | None:
    """Return how many class folders there are; None where there are none to be seen."""
    try:
        return len(_class_names(folder / "train")) if folder else None
    except DatasetError:
        return None


@register_dataset("imagefolder", num_classes=count_classes)
def read(folder: Path | None, settings: Settings) -> RawData:
    """Return any folder of images in class folders."""
    if folder is None:
        raise DatasetError(f"imagefolder needs a folder that holds {LAYOUT}")
    return read_folder(folder)


def read_folder(folder: Path) -> RawData:
    """Return the images of a folder; their size decides normalisation and augmentation.

    Raises:
        DatasetError: the folder or one of the expected ones in it is missing, empty, or has unknown classes.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; it should hold {LAYOUT}")
    classes = _class_names(folder / "train")
    found = {name: _read_part(folder / name, classes) for name in ("test", "val") if (folder / name).is_dir()}
    if not found:
        raise DatasetError(f"{folder}: found train/, but neither test/ nor val/ beside it; one of them is needed")
    train = _read_part(folder / "train", classes)
    size = file_shape(train.images[0])[1:]  # type: ignore[arg-type]
    is_cifar, is_small = size == CIFAR_SIZE, max(size) <= SMALL_SIDE
    return RawData(
        classes=classes,
        train=train,
        test=found.get("test") or found["val"],
        validation=found["val"] if len(found) > 1 else None,
        input_shape=(3, *size) if is_small else (3, 224, 224),
        mean=CIFAR_MEAN if is_cifar else IMAGENET_MEAN,
        std=CIFAR_STD if is_cifar else IMAGENET_STD,
        augmentation="crop_flip" if is_small else "photo_crop",
    )


def _class_names(train: Path) -> list[str]:
    if not train.is_dir():
        raise DatasetError(f"{train}: no such folder; the training images should be in {train}/<class>/*")
    names = sorted(entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise DatasetError(f"{train}: a folder for each of two classes at least is needed, found {len(names)}")
    return names


def _read_part(folder: Path, classes: list[str]) -> RawPart:
    unknown = sorted({e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")} - set(classes))
    if unknown:
        raise DatasetError(f"{folder / unknown[0]}: there is no class {unknown[0]!r} among the training folders")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
        if not inside and folder.name == "train":
            raise DatasetError(f"{folder / name}: no images ({' '.join(IMG_EXTENSIONS)})")
        paths += inside
        labels += [label] * len(inside)
    if not paths:
        raise DatasetError(f"{folder}: no images in its class folders ({' '.join(IMG_EXTENSIONS)})")
    return RawPart(paths, torch.tensor(labels), [_plain_name(path, folder) for path in paths])


def _plain_name(path: Path, folder: Path) -> str:
    """Return a file's name within a folder, with what is no text in it escaped."""
    name = path.relative_to(folder).as_posix()
    return name if name.isprintable() else ascii(name)[1:-1]
