import math

import pytest
import torch

from potstill.models.datasets import augmentation_names
from potstill.models.datasets.augment import (
    AUGMENTATIONS,
    centre_crop,
    random_crop,
    random_flip,
    random_resized_crop,
)


def noise(count: int, height: int, width: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=rng)


def test_random_crop_cuts_the_window_that_the_draws_say() -> None:
    images, draws = noise(50, 8, 8), torch.rand(50, 2)
    padded = torch.nn.functional.pad(images, [2] * 4)
    cropped = random_crop(images, draws, (8, 8), padding=2)
    for image, result, (v, u) in zip(padded, cropped, draws.tolist(), strict=True):
        top, left = math.floor(5 * v), math.floor(5 * u)
        assert torch.equal(result, image[:, top : top + 8, left : left + 8])


def test_random_crop_reaches_every_place_and_pads_only_small_canvases() -> None:
    images = noise(1, 10, 9).expand(2000, -1, -1, -1)
    draws = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    cropped = random_crop(images, draws, (8, 8), padding=4)
    places = {image.numpy().tobytes() for image in cropped}
    expected = {images[0, :, y : y + 8, x : x + 8].contiguous().numpy().tobytes() for y in range(3) for x in range(2)}
    assert places == expected


def test_random_flip_mirrors_by_the_draw() -> None:
    images = noise(4, 5, 6)
    flipped = random_flip(images, torch.tensor([0.1, 0.5, 0.49, 0.9]))
    for position, mirrored in enumerate((True, False, True, False)):
        assert torch.equal(flipped[position], images[position].flip(2) if mirrored else images[position])


@pytest.mark.parametrize(("flip", "mirrored"), [(0.2, True), (0.7, False)])
def test_resized_crop_of_whole_pixels_is_that_crop(flip: float, mirrored: bool) -> None:
    """A quarter of the area, square, to its own size: nothing is interpolated."""
    images = noise(1, 32, 32)
    draws = torch.tensor([[0.3, 0.6, 0.5, 0.25, flip]])
    result = random_resized_crop(images, draws, (16, 16), scale=(0.25, 0.25), ratio=(1, 1))
    expected = images[:, :, 4:20, 8:24].float()
    torch.testing.assert_close(result, expected.flip(3) if mirrored else expected, atol=1e-2, rtol=0)


def test_resized_crop_of_the_whole_image_is_a_resize() -> None:
    images = noise(3, 32, 24)
    draws = torch.tensor([[1.0, 0.5, 0.9, 0.1, 0.9]]).expand(3, -1)
    result = random_resized_crop(images, draws, (64, 48), scale=(1, 1), ratio=(24 / 32, 24 / 32))
    expected = torch.nn.functional.interpolate(images.float(), size=(64, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(result, expected, atol=1e-2, rtol=0)


def test_resized_crop_keeps_to_its_range_of_areas_and_ratios() -> None:
    """On an image whose values are its coordinates, the spread of the values is the size of the cut."""
    line = torch.arange(64, dtype=torch.uint8)
    images = torch.stack([line.view(64, 1).expand(64, 64), line.expand(64, 64)]).expand(500, -1, -1, -1)
    draws = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    result = random_resized_crop(images, draws, (32, 32), scale=(0.8, 1.0), ratio=(0.9, 1.1))
    spread = result.amax((2, 3)) - result.amin((2, 3))
    height, width = (spread * 32 / 31 / 64).T  # between the first and the last pixel's middle lie 31 of 32 steps
    area = height * width
    assert 0.75 < area.min() < 0.82
    assert area.max() <= 1.0
    assert (width / height).min() > 0.87
    assert (width / height).max() < 1.15


def test_centre_crop() -> None:
    images = noise(2, 10, 9)
    assert torch.equal(centre_crop(images, (8, 8)), images[:, :, 1:9, 0:8])


@pytest.mark.parametrize("name", augmentation_names())
@pytest.mark.parametrize("canvas", [(12, 12), (14, 16)])
def test_every_augmentation_gives_the_size_and_stays_in_range(name: str, canvas: tuple[int, int]) -> None:
    kind = AUGMENTATIONS[name]
    draws = torch.rand(20, kind.draws, generator=torch.Generator().manual_seed(0))
    result = kind.apply(noise(20, *canvas), draws, (12, 12))
    assert result.shape == (20, 3, 12, 12)
    assert result.min() >= 0
    assert result.max() <= 255
