"""The real CIFAR-10 and MNIST, where they lie beside the checkout."""

import tarfile
from pathlib import Path

import pytest

from potstill.models.datasets import load_dataset

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.2 has none
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the checkout")


@needs_data
def test_mnist_from_its_archive(tmp_path: Path) -> None:
    with tarfile.open(DATA / "mnist.tar") as archive:
        archive.extractall(tmp_path, **SAFELY)
    bundle = load_dataset("mnist", tmp_path)
    assert [len(bundle.train), len(bundle.validation), len(bundle.test)] == [54_000, 6_000, 10_000]
    assert bundle.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # the test set's well-known beginning
    images, _ = next(bundle.test.batches(10_000))
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02


@needs_data
def test_some_of_cifar10_from_its_archives(tmp_path: Path) -> None:
    for name in ("cifar10-test.tar.gz", "cifar10-train-a.tar.gz", "cifar10-train-b.tar.gz"):
        with tarfile.open(DATA / name) as archive:
            seen: dict[str, int] = {}
            for member in archive:
                folder = str(Path(member.name).parent)
                seen[folder] = seen.get(folder, 0) + member.isfile()
                if member.isfile() and seen[folder] <= 4:
                    archive.extract(member, tmp_path, **SAFELY)
    bundle = load_dataset("cifar10", tmp_path, validation_split=0.25)
    assert bundle.classes[0] == "airplane"
    assert [len(bundle.train), len(bundle.validation), len(bundle.test)] == [30, 10, 40]
    images, labels = next(bundle.test.batches(40))
    assert images.shape == (40, 3, 32, 32)
    assert labels.bincount().tolist() == [4] * 10
    assert images.std() > 0.5
