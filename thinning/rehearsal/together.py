"""Channels of different classes that one number of the model's code counts: they have to go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tracing.log import AttributeCount, TraceLog
from .sizes import ancestor, direct_sizes

Pair = tuple[Tensor, Tensor, str]
"""Ids, as many others, and why they go together."""


def of_rounds(log: TraceLog, labels: Tensor, line: tuple[Any, ...]) -> Iterator[Pair]:
    """Yield the channels of a line's first round in a loop that an attribute counts, with those of later rounds.

    `line` is the kind of an operation of it.
    """
    counted = [labels[count.ids] for count in log.counts]
    first: dict[tuple[Any, ...], Tensor] = {}
    for operation in log.operations:
        for size in direct_sizes(operation) if operation.kind[:-1] == line[:-1] else ():
            key, mine = (operation.module, size.slot, size.old), labels[size.ids]
            if operation.kind[-1] == 1 and any(torch.equal(mine, known) for known in counted):
                first[key] = size.ids
            elif key in first and not torch.equal(labels[first[key]], mine):
                yield first[key], size.ids, f"{operation.place}: one size in all rounds of a loop"


def of_count(log: TraceLog, steps: Sequence[int], level: int, count: AttributeCount, slot: Any) -> Iterator[Pair]:
    """Yield the channels that an attribute counts, with those of a size in operations of modules of one class.

    The attribute is that of the module `level` steps above each operation; `slot` says which size of it.
    """
    counts = {(known.module, known.name, known.index): known.ids for known in log.counts}
    for operation in (log.operations[step] for step in steps):
        known = counts.get((ancestor(operation.module, level) or "", count.name, count.index))
        for size in direct_sizes(operation) if known is not None else ():
            if known is not None and size.slot == slot and size.old == len(known):
                yield known, size.ids, f"{operation.place}: '{count.name}' is the size of both"


def united(log: TraceLog, pairs: Iterable[Pair]) -> TraceLog:
    """Return a copy of a log in which these go together."""
    twin = log.copy()
    for first, second, why in pairs:
        twin.unite(first, second, why)
    return twin
