"""The three splits of a data set with what a run must know and store about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .split import Split


@dataclass(frozen=True)
class DataBundle:
    """A data set, ready to train on.

    `input_shape` is (channels, height, width) of the batches. `split_indices` are the validation images' positions in
    the training set before any limit: store them, and give them to `load_dataset(indices=...)` for the same split; they
    are empty where the validation images come from elsewhere. With `validation_is_test` the best epoch is chosen by
    looking at the test images. Where images are files, `split_names` are those of the validation images and `files` is
    a digest of all training images' names. `mean` and `std` are what the images were normalised by. `notes` say in
    words what was done to the data: resizing, conversion, validation on the test images.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: list[str]
    input_shape: tuple[int, int, int]
    split_indices: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation_is_test: bool = False
    split_names: tuple[str, ...] = ()
    files: str = ""
    notes: tuple[str, ...] = ()

    def for_rank(self, rank: int, ranks: int) -> DataBundle:
        """Return what one of several processes sees of it."""
        train, validation, test = (split.for_rank(rank, ranks) for split in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)
