"""Each data set against its source."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from potstill.models.datasets import DatasetError, dataset_names, load_dataset


def test_names() -> None:
    assert {"cifar10", "digits", "imagefolder", "mnist", "symmetry"} <= set(dataset_names())


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bundle = load_dataset("digits", input_shape=(1, 8, 8), augmentation="none")
    source = load_digits()
    pairs = zip(source.images, source.target, strict=True)
    known = {(image.astype(int).tobytes(), int(label)) for image, label in pairs}
    read = []
    for split in (bundle.train, bundle.validation, bundle.test):
        for images, labels in split.batches(100):
            values = ((images * bundle.std[0] + bundle.mean[0]) * 16).round().numpy().astype(int)
            read += [(image.tobytes(), label) for image, label in zip(values, labels.tolist(), strict=True)]
    assert len(read) == 1797
    assert set(read) == known
    assert bundle.classes == list("0123456789")
    assert (bundle.test.labels.bincount() - bundle.test.labels.bincount().float().mean()).abs().max() < 2
    pixels = source.images / 16
    assert bundle.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert bundle.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_digits_follow_the_models_input() -> None:
    bundle = load_dataset("digits", input_shape=(3, 32, 32), augmentation="none")
    images, _ = next(bundle.test.batches(4))
    assert images.shape == (4, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])
    assert bundle.notes == ("grey images repeated in 3 channels", "images resized from 8x8 to 32x32")


def test_test_digits_do_not_depend_on_the_seed() -> None:
    first, second = (next(load_dataset("digits", seed=seed).test.batches(400)) for seed in (0, 1))
    assert torch.equal(first[0], second[0])


def test_symmetry_has_all_vectors_and_labels_them_right() -> None:
    bundle = load_dataset("symmetry")
    images, labels = next(bundle.train.batches(64))
    assert images.shape == (64, 6, 1, 1)
    texts = ["".join(str(int(bit)) for bit in image.flatten()) for image in images]
    assert len(set(texts)) == 64
    assert labels.tolist() == [int(text == text[::-1]) for text in texts]
    assert labels.sum() == 8
    assert len(bundle.validation) == len(bundle.test) == 64
    assert bundle.input_shape == (6, 1, 1)


def write_idx(path: Path, array: np.ndarray) -> None:
    content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, suffix: str = "", digits: int = 10) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays = {}
    for prefix, count in (("train", 60), ("t10k", 20)):
        arrays[prefix] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", arrays[prefix])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", (np.arange(count) % digits).astype(np.uint8))
    return arrays


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_wherever_its_files_lie(tmp_path: Path, place: str, suffix: str) -> None:
    arrays = write_mnist(tmp_path / "data" / place, suffix)
    bundle = load_dataset("mnist", tmp_path / "data")
    images, labels = next(bundle.test.batches(20))
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(arrays["t10k"]) / 255 - 0.1307) / 0.3081)
    assert labels.tolist() == [*range(10), *range(10)]
    assert [len(bundle.train), len(bundle.validation)] == [54, 6]


def test_normalisation_can_be_left_out(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / "raw")
    bundle = load_dataset("mnist", tmp_path, normalise=False, input_shape=(3, 28, 28))
    images, _ = next(bundle.test.batches(20))
    torch.testing.assert_close(images[:, 2], torch.from_numpy(arrays["t10k"]) / 255)
    assert (bundle.mean, bundle.std) == ((0.0,) * 3, (1.0,) * 3)


def test_damaged_mnist_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path / "raw")
    file = tmp_path / "raw" / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(DatasetError, match=r"images-idx3-ubyte: damaged \(47051 bytes, its header speaks of 47056"):
        load_dataset("mnist", tmp_path)
    file.write_bytes(b"<html>" + whole)
    with pytest.raises(DatasetError, match=r"not an idx file of bytes in 3 dimensions \(starts 3c68746d\)"):
        load_dataset("mnist", tmp_path)
    file.write_bytes(whole[:6])
    with pytest.raises(DatasetError, match="damaged"):
        load_dataset("mnist", tmp_path)
    packed = file.with_name(file.name + ".gz")
    packed.write_bytes(gzip.compress(whole)[:-20])
    file.unlink()
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte.gz: damaged"):
        load_dataset("mnist", tmp_path)


def test_mnist_labels_must_match(tmp_path: Path) -> None:
    write_mnist(tmp_path / "raw", digits=11)
    with pytest.raises(DatasetError, match="the training labels run from 0 to 10, but there are 10 classes"):
        load_dataset("mnist", tmp_path)
    write_idx(tmp_path / "raw" / "train-labels-idx1-ubyte", np.zeros(59, np.uint8))
    with pytest.raises(DatasetError, match=r"has 60 images but .*train-labels-idx1-ubyte has 59 labels"):
        load_dataset("mnist", tmp_path)


def test_image_folders_are_read_in_alphabetical_order(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(train=4, test=2)
    bundle = load_dataset("imagefolder", folder)
    images, labels = next(bundle.test.batches(6))
    assert bundle.classes == ["ant", "bee", "cow"]
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    with Image.open(folder / "test" / "bee" / "01.png") as file:
        pixels = torch.from_numpy(np.asarray(file).copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (bundle.mean, bundle.std))
    torch.testing.assert_close(images[3], (pixels - mean) / std)
    assert bundle.mean == (0.4914, 0.4822, 0.4465)
    assert bundle.input_shape == (3, 32, 32)


def test_images_deeper_inside_a_class_folder_count(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(train=3, test=2)
    (folder / "train" / "ant" / "more").mkdir()
    (folder / "train" / "ant" / "00.png").rename(folder / "train" / "ant" / "more" / "x.PNG")
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    assert len(load_dataset("imagefolder", folder, validation_split=0).train) == 9


def test_grey_models_get_grey_images(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(train=3, test=2)
    bundle = load_dataset("imagefolder", folder, input_shape=(1, 32, 32))
    images, _ = next(bundle.test.batches(1))
    with Image.open(folder / "test" / "ant" / "00.png") as file:
        pixels = torch.from_numpy(np.asarray(file.convert("L")).copy()) / 255
    torch.testing.assert_close(images[0, 0], (pixels - bundle.mean[0]) / bundle.std[0])
    assert bundle.mean[0] == pytest.approx(0.299 * 0.4914 + 0.587 * 0.4822 + 0.114 * 0.4465)
    assert "colour images turned to grey" in bundle.notes


def test_photographs_are_cut_from_larger_canvases(make_folder: Callable[..., Path]) -> None:
    """As usual for ImageNet: the shorter side to 8/7 of the input, then the middle."""
    folder = make_folder(train=3, test=1, size=(300, 200))
    bundle = load_dataset("imagefolder", folder, input_shape=(3, 140, 140))
    images, _ = next(bundle.test.batches(1))
    with Image.open(folder / "test" / "ant" / "00.png") as file:
        canvas = ImageOps.fit(file, (160, 160), method=Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(canvas)[10:150, 10:150].copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (bundle.mean, bundle.std))
    torch.testing.assert_close(images[0], (pixels - mean) / std)
    assert bundle.mean == (0.485, 0.456, 0.406)
    assert bundle.train.recipe.augmentation == "photo_crop"
    assert next(bundle.train.batches(4))[0].shape == (4, 3, 140, 140)
    assert bundle.notes == ("images resized from 200x300 to 160x160", "140x140 cut out of them")


def test_cifar10_takes_torchvisions_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class FakeCifar:
        """As torchvision's: images (N, 32, 32, 3) and a list of labels."""

        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert not download
            count = 40 if train else 20
            self.data = np.random.default_rng(train).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            self.targets = [i % 10 for i in range(count)]

    monkeypatch.setattr("potstill.models.datasets.cifar10.CIFAR10", FakeCifar)
    bundle = load_dataset("cifar10", tmp_path, validation_split=0.25)
    images, labels = next(bundle.test.batches(20))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (bundle.mean, bundle.std))
    data = torch.from_numpy(FakeCifar("", False, False).data).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, (data / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert labels.tolist() == [*range(10), *range(10)]
    assert bundle.classes[3] == "cat"
