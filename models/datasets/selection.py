"""Which images go where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import DatasetError
from .raw import RawData, RawPart
from .seeding import Use, generator
from .settings import Settings


def stratified_sample(labels: Tensor, fraction: float, seed: int, use: Use) -> list[int]:
    """Return sorted indices of `fraction` of the images, spread over the classes by their sizes (largest remainders).

    Raises:
        DatasetError: the fraction is so small or so large that it selects none or all.
    """
    total = round(fraction * len(labels))
    if not 0 < total < len(labels):
        amount = "all" if total else "none"
        raise DatasetError(f"a validation split of {fraction:g} of {len(labels)} training images is {amount} of them")
    rng = generator(use, seed)
    sizes = labels.bincount()
    share = fraction * sizes.double()
    counts = share.long()
    neediest = (counts - share).argsort(stable=True)  # negative remainders, the largest first
    counts[neediest[: total - int(counts.sum())]] += 1
    chosen: list[int] = []
    for label, count in enumerate(counts.tolist()):
        members = torch.nonzero(labels == label).flatten()
        chosen += members[torch.randperm(len(members), generator=rng, device="cpu")[:count]].tolist()
    return sorted(chosen)


def checked_indices(indices: Sequence[int], count: int) -> list[int]:
    """Return the given validation indices, sorted.

    Raises:
        DatasetError: one of them is not the position of a training image, stands twice, or none is left to train on.
    """
    chosen = sorted(indices)
    if chosen and not 0 <= chosen[0] <= chosen[-1] < count:
        wrong = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise DatasetError(
            f"validation image {wrong} of the stored split does not exist, there are {count} training images: "
            "the data are not those that the split was made from"
        )
    if len(set(chosen)) != len(chosen) or len(chosen) >= count:
        raise DatasetError(f"{len(chosen)} validation indices for {count} training images: some stand twice, or all do")
    return chosen


def share_of(share: float, count: int) -> int:
    """Return how many of so many images a share is, at least one."""
    return max(1, int(share * count))


def limited(part: RawPart, limit: int | None, seed: int, share: float = 1.0) -> RawPart:
    """Return a random sample of `limit` images and of a share, in their old order, fixed by the seed.

    Else the part itself.
    """
    count = len(part.labels)
    limit = min(count if limit is None else limit, share_of(share, count))
    if limit >= count:
        return part
    chosen = torch.randperm(count, generator=generator(Use.LIMIT, seed), device="cpu")[:limit]
    return part.subset(sorted(chosen.tolist()))


@dataclass(frozen=True)
class Division:
    """Which images each split has; `held_out` are the validation images' positions in the training set."""

    train: RawPart
    validation: RawPart
    test: RawPart
    held_out: list[int]
    validation_is_test: bool


def divide(raw: RawData, settings: Settings) -> Division:
    """Set validation images aside as the settings say, then limit each part.

    Raises:
        DatasetError: see `stratified_sample` and `checked_indices`.
    """
    held_out = _held_out(raw, settings)
    train, validation = raw.train, raw.validation or raw.test
    if held_out:
        validation = raw.train.subset(held_out)
        train = raw.train.subset(_complement(held_out, len(raw.train.labels)))
    return Division(
        limited(train, settings.limit_train, settings.seed),
        limited(validation, settings.limit_validation, settings.seed, settings.share_validation),
        limited(raw.test, settings.limit_test, settings.seed, settings.share_test),
        held_out,
        validation_is_test=validation is raw.test,
    )


def _held_out(raw: RawData, settings: Settings) -> list[int]:
    if settings.held_out is not None and raw.train.names:
        return _positions(settings.held_out, raw.train.names)
    if settings.indices is not None:
        return checked_indices(settings.indices, len(raw.train.labels))
    if raw.validation is not None or not raw.holdout or settings.validation_split == 0:
        return []
    return stratified_sample(raw.train.labels, settings.validation_split, settings.seed, Use.SPLIT)


def _positions(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where images stand now; files that came or went since would have moved all others.

    Raises:
        DatasetError: one of them is gone, or there is no other image.
    """
    places = {name: place for place, name in enumerate(names)}
    gone = [name for name in wanted if name not in places]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise DatasetError(
            f"validation image {gone[0][:100]!r}{more} of the stored split does not exist any more: it was renamed or"
            " deleted, and this run cannot go on as it was; put it back, or start another run"
        )
    return checked_indices([places[name] for name in wanted], len(names))


def _complement(indices: Sequence[int], count: int) -> list[int]:
    taken = set(indices)
    return [i for i in range(count) if i not in taken]
