"""Which attributes count which sizes: the likely answers first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from .sizes import Size


@dataclass(frozen=True)
class Match:
    """The attribute `name` (or its element `index`) equals a size."""

    name: str
    index: int | None
    size: Size

    @property
    def key(self) -> tuple[str, int | None]:
        """Return the attribute."""
        return self.name, self.index


Choice = list[Match]


def choices(direct: Choice, further: Choice, later: Choice, labels: Tensor) -> Iterator[Choice]:
    """Yield sets of attributes to count by: those that equal a size, one by one, then with what may follow from them.

    Two attributes of one value may count two kinds of channels: then they are taken in their order first.
    """
    # Attributes in the order in which `__init__` set them, sizes in that of the operation's axes: of equal numbers the
    # first attribute most often is the first size.
    yield from _in_order(direct, labels)
    if direct:
        single = [[match] for match in direct]
        # Of several for one size most equal it by chance: what is changed for nothing may fail where no shape tells.
        rivals = len({match.size.slot for match in direct}) < len(direct)
        yield from (*single, _first_of_each(direct)) if rivals else (_first_of_each(direct), *single)
    if further:
        yield _first_of_each([*direct, *further])
    # Two numbers of one formula, of which the operation shows one or none (`split(heads * width)`).
    others = [match for match in _first_of_each(later) if match.key not in {known.key for known in direct}]
    yield from ([*_first_of_each(direct), other] for other in others)
    # At last any two, quadratic in number: the caller bounds how many are tried.
    every = [*direct, *further]
    for number, first in enumerate(every):
        yield from ([first, second] for second in every[number + 1 :] if first.key != second.key)
    yield from ([match] for match in further)
    if not direct:
        yield from map(list, combinations(others, 2))


def different(matches: Iterable[Match]) -> Choice:
    """Return those that count other channels or by another attribute: training mode shows the same sizes again."""
    found: Choice = []
    for match in matches:
        if not any(match.key == other.key and torch.equal(match.size.ids, other.size.ids) for other in found):
            found.append(match)
    return found


def _first_of_each(matches: Choice) -> Choice:
    found: dict[tuple[str, int | None], Match] = {}
    for match in matches:
        found.setdefault(match.key, match)
    return list(found.values())


def _in_order(matches: Choice, labels: Tensor) -> Iterator[Choice]:
    names = [match.key for match in _first_of_each(matches)]
    sizes = _distinct([match.size for match in matches], labels)
    pairs = {(match.key, match.size.slot): match for match in matches}
    if len(names) > 1 and len(sizes) > 1:
        found = [pairs.get((key, size.slot)) for key, size in zip(names, sizes, strict=False)]
        if all(found):
            yield [match for match in found if match is not None]


def _distinct(sizes: Sequence[Size], labels: Tensor) -> list[Size]:
    """Return the sizes that count different channels."""
    found: list[Size] = []
    for size in sizes:
        mine = labels[size.ids]
        if not any(torch.equal(mine, labels[other.ids]) for other in found):
            found.append(size)
    return found
