"""A part of a data set that gives batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .augment import AUGMENTATIONS
from .errors import DatasetError
from .seeding import Use, generator
from .sources import Source

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a canvas becomes an input of the model: augmentation, size (height, width), then (value - mean) / std."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str = "none"


class Split:
    """Images with labels. With `shuffle_seed` it is a training split: shuffled and augmented anew in each epoch.

    What a batch holds is a function of (shuffle_seed, epoch, batch size, position) alone: it does not read or advance
    torch's global random state, and does not depend on the batches that were taken before.
    """

    def __init__(
        self,
        source: Source,
        labels: Tensor,
        recipe: Recipe,
        *,
        shuffle_seed: int | None = None,
        workers: int = 0,
        share: float = 1.0,
    ) -> None:
        """Split; with a `share` below 1 an epoch is that part of the images, which are drawn anew for each."""
        self.share = share
        self.rank, self.ranks = 0, 1
        self.source = source
        self.labels = labels
        self.recipe = recipe
        self.shuffle_seed = shuffle_seed
        self.workers = 0 if source.in_memory else workers
        scale = 255 * torch.tensor(recipe.std).view(-1, 1, 1)
        self._factor = 1 / scale
        self._offset = 255 * torch.tensor(recipe.mean).view(-1, 1, 1)

    def for_rank(self, rank: int, ranks: int) -> Split:
        """Return the part of one of several processes: of each training batch, or of the batches of other splits."""
        mine = copy.copy(self)
        mine.rank, mine.ranks = rank, ranks
        return mine

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images_per_epoch(self) -> int:
        """Return how many images an epoch has."""
        return max(1, int(self.share * len(self)))

    def batch_length(self, batch_size: int, position: int) -> int:
        """Return the number of images of a training batch over all processes; `position` counts batches."""
        last = position + 1 == self.batch_count(batch_size)
        return self.images_per_epoch - position * batch_size if last else batch_size

    def batch_count(self, batch_size: int) -> int:
        """Return the number of batches of an epoch: of all processes together."""
        count = -(-self.images_per_epoch // batch_size)
        return count - 1 if count > 1 and self._joins_last(batch_size) else count

    def batches(self, batch_size: int, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield (float32 images (N, C, H, W), int64 labels (N,)); the first `start` batches are left out, not loaded.

        All images of an epoch are given once. The last batch is smaller where the numbers do not divide; a single
        training image left over joins the batch before it, since BatchNorm cannot train on one. With several processes
        (see `for_rank`) each gets its part of every training batch, two images at least, and every so many-th batch of
        another split.

        Raises:
            DatasetError: an image cannot be read.
        """
        if batch_size < 1:
            raise DatasetError(f"the batch size must be at least 1, not {batch_size}")
        if self.ranks > 1 and self.shuffle_seed is not None and min(batch_size, self.images_per_epoch) < 2 * self.ranks:
            raise DatasetError(
                f"{self.ranks} processes share each batch: it must have {2 * self.ranks} images at least, not"
                f" {min(batch_size, self.images_per_epoch)}"
            )
        reader = _Batches(self, self._own(self._chunks(batch_size, epoch)[start:]), self._draws(epoch))
        if self.workers == 0:
            for position in range(len(reader)):
                yield reader.load(position)
        else:
            # A generator of its own: without one the loader would draw its seed from the global random state.
            loader = DataLoader(reader, batch_size=None, num_workers=self.workers, generator=torch.Generator())
            for result in loader:
                if isinstance(result, DatasetError):
                    raise result
                yield result

    def _chunks(self, batch_size: int, epoch: int) -> list[Tensor]:
        order = torch.arange(len(self))
        if self.shuffle_seed is not None:
            order = torch.randperm(len(self), generator=generator(Use.ORDER, self.shuffle_seed, epoch), device="cpu")
        chunks = list(order[: self.images_per_epoch].split(batch_size))
        if len(chunks) > 1 and self._joins_last(batch_size):
            chunks[-2:] = [torch.cat(chunks[-2:])]
        return chunks

    def _own(self, chunks: list[Tensor]) -> list[Tensor]:
        """Return what this process gets of the batches."""
        if self.shuffle_seed is None:
            return chunks[self.rank :: self.ranks]
        return [chunk.tensor_split(self.ranks)[self.rank] for chunk in chunks]

    def _joins_last(self, batch_size: int) -> bool:
        least = 2 if self.ranks == 1 else 2 * self.ranks
        return self.shuffle_seed is not None and batch_size > 1 and 0 < self.images_per_epoch % batch_size < least

    def _draws(self, epoch: int) -> Tensor:
        """Return a row of uniform numbers for each image, by its position in the split, not in the epoch's order."""
        count = AUGMENTATIONS[self.recipe.augmentation].draws
        if self.shuffle_seed is None or count == 0:
            return torch.empty(len(self), 0)
        return torch.rand(len(self), count, generator=generator(Use.AUGMENT, self.shuffle_seed, epoch), device="cpu")

    def prepare(self, indices: Tensor, draws: Tensor) -> Batch:
        """Load, augment and normalise the images at `indices`; `draws` has a row for each."""
        canvases = self.source.load(indices)
        images = AUGMENTATIONS[self.recipe.augmentation].apply(canvases, draws, self.recipe.size)
        return images.float().sub_(self._offset).mul_(self._factor), self.labels[indices]


class _Batches(Dataset[Batch | DatasetError]):
    """The batches of an epoch by position, as a DataLoader's workers take them."""

    def __init__(self, split: Split, chunks: list[Tensor], draws: Tensor) -> None:
        self.split = split
        self.chunks = chunks
        self.draws = draws

    def __len__(self) -> int:
        return len(self.chunks)

    def load(self, position: int) -> Batch:
        indices = self.chunks[position]
        return self.split.prepare(indices, self.draws[indices])

    def __getitem__(self, position: int) -> Batch | DatasetError:
        # An exception that crosses from a worker arrives with a page of traceback as its text: hand it over as a value.
        try:
            return self.load(position)
        except DatasetError as error:
            return error
