from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def write_images(folder: Path, count: int, size: tuple[int, int], rng: np.random.Generator) -> None:
    """`count` noise images (width, height) in each class folder."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Builds a folder of noise images: `make_folder(train=7, test=3, size=(32, 32))`."""

    def make(size: tuple[int, int] = (32, 32), **counts: int) -> Path:
        rng = np.random.default_rng(0)
        for part, count in (counts or {"train": 7, "test": 3}).items():
            write_images(tmp_path / "images" / part, count, size, rng)
        return tmp_path / "images"

    return make
