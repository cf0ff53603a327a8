"""What can be wrong with data: one line that says what, where, and the way out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from potstill.models.datasets import (
    DatasetError,
    RawData,
    RawPart,
    Settings,
    dataset_names,
    load_dataset,
    register_dataset,
)
from potstill.models.datasets import raw as raw_module


def message(*arguments: object, **settings: object) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset(*arguments, **settings)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", dataset_names())
def test_each_data_set_knows_whether_it_needs_a_folder(name: str, tmp_path: Path) -> None:
    if name in {"digits", "symmetry"}:
        assert f"leave {tmp_path} out" in message(name, tmp_path)
        assert len(load_dataset(name).train) > 0
    else:
        assert f"{name} needs a folder" in message(name)
        assert str(tmp_path / "absent") in message(name, tmp_path / "absent")


def test_unknown_names_and_settings() -> None:
    assert message("digit") == "no data set is called 'digit' (did you mean digits?)"
    assert message("zzz").startswith("no data set is called 'zzz'; there are cifar10, digits")
    with pytest.raises(TypeError, match="valdation_split"):
        load_dataset("digits", valdation_split=0.2)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"validation_split": 1.0}, "validation_split must be at least 0 and below 1, not 1"),
        ({"validation_split": 0.0001}, "a validation split of 0.0001 of 1438 training images is none of them"),
        ({"seed": -1}, "seed must not be negative, but is -1"),
        ({"workers": -2}, "workers must not be negative, but is -2"),
        ({"limit_train": 0}, "limit_train must be at least 1, not 0"),
        ({"augmentation": "flips"}, "no augmentation 'flips'; one of none, shift, crop_flip, resized_crop, photo_crop"),
        ({"num_classes": 1000}, "digits has 10 classes and the model 1000: they must be the same"),
        ({"input_shape": (2, 8, 8)}, "the images have 1 channels, the model reads 2: no way to convert them"),
        ({"indices": [5, 1438]}, "validation image 1438 of the stored split does not exist, there are 1438 training"),
        ({"indices": [-1]}, "validation image -1 of the stored split does not exist"),
        ({"indices": [5, 5]}, "2 validation indices for 1438 training images: some stand twice"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], text: str) -> None:
    assert text in message("digits", **settings)


def test_missing_folders_are_named(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    assert f"{tmp_path}/nowhere: no such folder; it should hold train/<class>/*" in message(
        "imagefolder", tmp_path / "nowhere"
    )
    assert f"{tmp_path}/train: no such folder" in message("imagefolder", tmp_path)
    assert "found train/, but neither test/ nor val/ beside it" in message("imagefolder", make_folder(train=2))
    text = message("mnist", tmp_path)
    assert "no file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in" in text
    assert f"{tmp_path}/MNIST/raw" in text
    assert "neither train/<class>/* nor undamaged cifar-10-batches-py/" in message("cifar10", tmp_path)


def test_folders_without_images(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(train=2, test=1)
    for file in (folder / "train" / "bee").iterdir():
        file.rename(file.with_suffix(".txt"))
    assert f"{folder}/train/bee: no images (.jpg" in message("imagefolder", folder)
    for file in folder.glob("test/*/*"):
        file.unlink()
    for file in (folder / "train" / "bee").iterdir():
        file.rename(file.with_suffix(".png"))
    assert f"{folder}/test: no images in its class folders" in message("imagefolder", folder)


def test_classes_that_do_not_fit(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(train=2, test=1)
    (folder / "test" / "dog").mkdir()
    assert f"{folder}/test/dog: there is no class 'dog' among the training folders" in message("imagefolder", folder)
    assert "its class folders are not CIFAR-10's; read it as imagefolder" in cifar_message(folder)
    for name in ("bee", "cow"):
        (folder / "train" / name).rename(folder / f"away_{name}")
    assert "a folder for each of two classes at least is needed, found 1" in message("imagefolder", folder)


def cifar_message(folder: Path) -> str:
    (folder / "test" / "dog").rmdir()
    text = message("cifar10", folder)
    (folder / "test" / "dog").mkdir()
    return text


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_in_memory_and_in_workers(make_folder: Callable[..., Path], workers: int) -> None:
    folder = make_folder(train=2, test=2)
    broken = folder / "test" / "cow" / "01.png"
    broken.write_bytes(broken.read_bytes()[:300])
    assert f"{broken}: not a readable image" in message("imagefolder", folder)
    bundle = load_dataset("imagefolder", folder, memory_limit=0, workers=workers, validation_split=0)
    with pytest.raises(DatasetError) as caught:
        list(bundle.test.batches(2))
    assert str(caught.value).startswith(f"{broken}: not a readable image")
    assert "\n" not in str(caught.value)


def test_the_first_image_is_named_too(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(train=2, test=2)
    (folder / "train" / "ant" / "00.png").write_text("no image")
    assert "train/ant/00.png: not a readable image" in message("imagefolder", folder)


@pytest.fixture
def one_reader(monkeypatch: pytest.MonkeyPatch) -> Callable[[RawData], None]:
    """Registers a data set called `mine` for one test."""
    monkeypatch.setattr(raw_module, "_readers", dict(raw_module._readers))

    def register(data: RawData) -> None:
        register_dataset("mine")(lambda folder, settings: data)

    return register


def raw(labels: list[int], classes: list[str]) -> RawData:
    part = RawPart(torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))
    return RawData(classes, part, part, (1, 4, 4), (0.5,), (0.5,), "none")


def test_a_data_set_registered_from_outside(one_reader: Callable[[RawData], None]) -> None:
    one_reader(raw([0, 1] * 10, ["no", "yes"]))
    bundle = load_dataset("mine", validation_split=0.2)
    assert [len(bundle.train), len(bundle.validation), len(bundle.test)] == [16, 4, 20]
    with pytest.raises(DatasetError, match="data set name 'mine' is already taken by"):
        register_dataset("mine")(lambda folder, settings: raw([0], ["no"]))


@pytest.mark.parametrize(
    ("labels", "classes", "text"),
    [
        ([0, 1, 2], ["a", "b"], "the training labels run from 0 to 2, but there are 2 classes"),
        ([-1, 1], ["a", "b"], "the training labels run from -1 to 1"),
        ([0, 0], ["a"], "a classifier needs at least two classes, found ['a']"),
        ([], ["a", "b"], "there are no training images"),
    ],
)
def test_labels_are_checked(
    one_reader: Callable[[RawData], None], labels: list[int], classes: list[str], text: str
) -> None:
    one_reader(raw(labels, classes))
    assert text in message("mine")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("potstill.models.datasets.mnist.MNIST", refuse)
    monkeypatch.setattr("potstill.models.datasets.cifar10.CIFAR10", refuse)
    assert "mnist could not be downloaded to" in message("mnist", tmp_path, download=True)
    assert "no route" in message("cifar10", tmp_path, download=True)


def test_settings_are_documented_for_the_caller() -> None:
    documented = Settings.__doc__ or ""
    assert all(name in documented for name in Settings.__dataclass_fields__)
