"""Batches are a function of (seed, epoch, batch size, position), whatever holds the images."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from potstill.models.datasets import DataBundle, DatasetError, Split, load_dataset
from potstill.models.datasets.seeding import Use
from potstill.models.datasets.selection import stratified_sample
from potstill.models.datasets.sources import TensorImages
from potstill.models.datasets.split import Recipe


def numbered(count: int, augmentation: str = "none", shuffle_seed: int | None = 0) -> Split:
    """Images that are told apart by their labels, which are their positions."""
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    recipe = Recipe((8, 8), (0.5,) * 3, (0.25,) * 3, augmentation)
    return Split(TensorImages(images), torch.arange(count), recipe, shuffle_seed=shuffle_seed)


def by_position(split: Split, batch_size: int, epoch: int = 0) -> Tensor:
    """The epoch's images in the order of their positions."""
    images, positions = (torch.cat(part) for part in zip(*split.batches(batch_size, epoch), strict=True))
    return images[positions.argsort()]


def same_batches(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("augmentation", ["none", "shift", "crop_flip", "resized_crop", "photo_crop"])
def test_a_resumed_epoch_gives_the_rest_of_the_uninterrupted_one(augmentation: str) -> None:
    whole = list(numbered(50, augmentation).batches(8, epoch=3))
    resumed = list(numbered(50, augmentation).batches(8, epoch=3, start=4))
    assert same_batches(whole[4:], resumed)
    assert len(whole) == 7


def test_epochs_and_seeds_differ_and_repeat() -> None:
    orders = {
        (seed, epoch): torch.cat([labels for _, labels in numbered(40, shuffle_seed=seed).batches(8, epoch)])
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert all(torch.equal(order.sort().values, torch.arange(40)) for order in orders.values())
    assert len({tuple(order.tolist()) for order in orders.values()}) == 4
    again = torch.cat([labels for _, labels in numbered(40, shuffle_seed=1).batches(8, epoch=1)])
    assert torch.equal(again, orders[1, 1])


def test_an_image_is_augmented_the_same_in_batches_of_any_size() -> None:
    split = numbered(40, "crop_flip")
    assert torch.equal(by_position(split, 8, epoch=2), by_position(split, 16, epoch=2))
    assert not torch.equal(by_position(split, 8, epoch=2), by_position(split, 8, epoch=1))


def test_torchs_random_state_is_neither_read_nor_advanced(make_folder: Callable[..., Path]) -> None:
    bundle = load_dataset("imagefolder", make_folder(), memory_limit=0, workers=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = list(bundle.train.batches(8))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert same_batches(first, list(bundle.train.batches(8)))


@pytest.mark.parametrize(("count", "batch_size"), [(16, 8), (17, 8), (18, 8), (1, 8), (9, 1), (8, 8), (5, 8)])
@pytest.mark.parametrize("shuffle_seed", [None, 0])
def test_batch_count_and_the_single_image_left_over(count: int, batch_size: int, shuffle_seed: int | None) -> None:
    split = numbered(count, shuffle_seed=shuffle_seed)
    sizes = [len(labels) for _, labels in split.batches(batch_size)]
    assert sum(sizes) == count == len(split)
    assert len(sizes) == split.batch_count(batch_size)
    if shuffle_seed is not None and count > 1 and batch_size > 1:
        assert min(sizes) > 1
    if (count, batch_size) == (17, 8):
        assert sizes == ([8, 8, 1] if shuffle_seed is None else [8, 9])


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(DatasetError, match="batch size must be at least 1, not 0"):
        next(numbered(4).batches(0))


def test_images_are_normalised_float32() -> None:
    split = numbered(6, shuffle_seed=None)
    images, labels = next(split.batches(6))
    expected = (split.source.load(torch.arange(6)).double() / 255 - 0.5) / 0.25
    torch.testing.assert_close(images.double(), expected, atol=1e-6, rtol=1e-6)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_the_batches_that_memory_gives(make_folder: Callable[..., Path], workers: int) -> None:
    folder = make_folder()
    bundles = [load_dataset("imagefolder", folder, memory_limit=limit, workers=workers) for limit in (2**29, 0)]
    assert [bundle.train.source.in_memory for bundle in bundles] == [True, False]
    assert [bundle.train.workers for bundle in bundles] == [0, workers]
    for part in ("train", "validation", "test"):
        in_memory, from_files = (list(getattr(bundle, part).batches(4, epoch=1, start=1)) for bundle in bundles)
        assert same_batches(in_memory, from_files), part


def test_validation_images_are_never_augmented_nor_shuffled() -> None:
    plain = load_dataset("digits", augmentation="none")
    varied = load_dataset("digits", augmentation="shift")
    for part in ("validation", "test"):
        expected = list(getattr(plain, part).batches(64))
        for epoch in (0, 1):
            assert same_batches(list(getattr(varied, part).batches(64, epoch=epoch)), expected)
    assert not torch.equal(next(varied.train.batches(64))[0], next(plain.train.batches(64))[0])


def all_images(bundle: DataBundle, part: str) -> set[bytes]:
    return {image.numpy().tobytes() for images, _ in getattr(bundle, part).batches(500) for image in images}


def test_splits_share_no_image_and_lose_none(make_folder: Callable[..., Path]) -> None:
    bundle = load_dataset("imagefolder", make_folder(train=20, test=4), augmentation="none", validation_split=0.25)
    parts = [all_images(bundle, part) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [45, 15, 12]
    assert len(set.union(*parts)) == 72
    assert bundle.validation.labels.bincount().tolist() == [5, 5, 5]
    assert len(bundle.split_indices) == 15
    assert all(a < b for a, b in pairwise(bundle.split_indices))


def test_stored_indices_bring_the_split_back_under_another_seed() -> None:
    first = load_dataset("digits", seed=3)
    other = load_dataset("digits", seed=4)
    again = load_dataset("digits", seed=4, validation_split=0.5, indices=first.split_indices)
    assert first.split_indices != other.split_indices
    assert again.split_indices == first.split_indices
    assert same_batches(list(again.validation.batches(50)), list(first.validation.batches(50)))


def test_no_validation_split_means_the_test_images() -> None:
    bundle = load_dataset("digits", validation_split=0)
    assert bundle.validation_is_test
    assert "validation runs on the test images" in bundle.notes
    assert bundle.split_indices == []
    assert all_images(bundle, "validation") == all_images(bundle, "test")
    assert not load_dataset("digits").validation_is_test


def test_own_validation_images_are_used(make_folder: Callable[..., Path]) -> None:
    bundle = load_dataset("imagefolder", make_folder(train=4, val=3, test=2))
    assert [len(bundle.train), len(bundle.validation), len(bundle.test)] == [12, 9, 6]
    assert not bundle.validation_is_test


def test_limits_take_a_fixed_sample_after_the_split() -> None:
    whole = load_dataset("digits", augmentation="none")
    part = load_dataset("digits", augmentation="none", limit_train=200, limit_validation=20, limit_test=30)
    assert [len(part.train), len(part.validation), len(part.test)] == [200, 20, 30]
    assert part.split_indices == whole.split_indices
    for name in ("train", "validation", "test"):
        assert all_images(part, name) <= all_images(whole, name)
    again = load_dataset("digits", augmentation="none", limit_train=200)
    assert all_images(again, "train") == all_images(part, "train")
    assert (part.train.labels.bincount() > 0).all()


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_a_stratified_sample_has_the_exact_size_and_every_classes_share(
    sizes: list[int], fraction: float, seed: int
) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    total = round(fraction * len(labels))
    assume(0 < total < len(labels))
    chosen = stratified_sample(labels, fraction, seed, Use.SPLIT)
    assert len(set(chosen)) == len(chosen) == total
    counts = labels[chosen].bincount(minlength=len(sizes))
    assert (counts - fraction * torch.tensor(sizes)).abs().max() <= 1
    assert stratified_sample(labels, fraction, seed, Use.SPLIT) == chosen


def test_a_share_of_the_training_images_is_drawn_anew_for_each_epoch():
    bundle = load_dataset("digits", share_train=0.25, seed=3)
    whole = load_dataset("digits", seed=3)
    count = int(0.25 * len(whole.train))
    assert len(bundle.train) == len(whole.train) and bundle.train.batch_count(50) == -(-count // 50)
    epochs = [torch.cat([images for images, _ in bundle.train.batches(50, epoch)]) for epoch in (0, 1, 0)]
    assert len(epochs[0]) == count and torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])
    first = torch.cat([images for images, _ in whole.train.batches(count, 0)])[:count]
    assert torch.equal(epochs[0], first)


def test_shares_of_validation_and_test_stay_the_same():
    bundle = load_dataset("digits", share_validation=0.5, share_test=0.1)
    whole = load_dataset("digits")
    assert len(bundle.validation) == len(whole.validation) // 2 and len(bundle.test) == len(whole.test) // 10


def test_mean_and_deviation_of_ones_own():
    plain = next(load_dataset("digits", normalise=False, augmentation="none").test.batches(8))[0]
    given = next(load_dataset("digits", mean=[0.5], std=[0.25], augmentation="none").test.batches(8))[0]
    assert torch.allclose(given, (plain - 0.5) / 0.25, atol=1e-6)
    with pytest.raises(DatasetError, match="mean has 3 numbers, but the images have 1 channels"):
        load_dataset("digits", mean=[0.5] * 3)
    for wrong in ({"std": [0.0]}, {"mean": [float("nan")]}, {"share_train": 0}, {"share_test": 1.1}):
        with pytest.raises(DatasetError):
            load_dataset("digits", **wrong)


@pytest.mark.parametrize(("count", "size", "ranks"), [(50, 8, 2), (50, 9, 3), (51, 10, 4), (33, 8, 2), (40, 16, 4)])
def test_ranks_share_each_batch_and_take_each_image_once(count: int, size: int, ranks: int) -> None:
    whole, shared = numbered(count), [numbered(count).for_rank(rank, ranks) for rank in range(ranks)]
    parts = [[labels for _, labels in split.batches(size, 2)] for split in shared]
    assert [len(own) for own in parts] == [shared[0].batch_count(size)] * ranks
    batches = [torch.cat(each) for each in zip(*parts, strict=True)]
    assert torch.equal(torch.cat(batches), torch.cat([labels for _, labels in whole.batches(size, 2)]))
    assert [len(batch) for batch in batches] == [shared[0].batch_length(size, i) for i in range(len(batches))]
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert all(len(labels) >= 2 for own in parts for labels in own)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_evaluate_each_image_once(ranks: int) -> None:
    shared = [numbered(50, shuffle_seed=None).for_rank(rank, ranks) for rank in range(ranks)]
    found = [int(position) for split in shared for _, labels in split.batches(8) for position in labels]
    assert sorted(found) == list(range(50))
