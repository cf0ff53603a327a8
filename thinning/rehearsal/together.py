"""Channels of different classes that one number of the model's code counts: they have to go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tracing.entries import AttributeCount, Operation
from ..tracing.log import TraceLog
from .sizes import FAR, ancestor, direct_sizes, within

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


def alongside(log: TraceLog, labels: Tensor, step: int) -> list[Pair]:
    """Return the channels of an operation with as many others that its module has seen before, the latest first.

    Code may give both the size of one: `width = key.shape[-1]`, by which the values are viewed too.
    """
    mine, module = next(iter(_single(log.operations[step])), None), log.operations[step].module
    if mine is None:
        return []
    found: dict[bytes, Pair] = {}
    for operation in reversed(log.operations[max(0, step - FAR) : step]):
        for ids in _single(operation) if within(operation.module, module) else ():
            if len(ids) == len(mine) and not bool(torch.isin(labels[ids], labels[mine]).any()):
                found.setdefault(
                    labels[ids].numpy().tobytes(), (mine, ids, f"{log.operations[step].place}: of one size")
                )
    return list(found.values())


def _single(operation: Operation) -> list[Tensor]:
    """Return the channels that an operation makes, or reads, along one axis alone."""
    planes = [*(plane for _, planes in operation.made for plane in planes), *operation.read]
    return [plane.ids.reshape(-1) for plane in planes if len(plane.dims) == 1]


def united(log: TraceLog, pairs: Iterable[Pair]) -> TraceLog:
    """Return a copy of a log in which these go together."""
    twin = log.copy()
    for first, second, why in pairs:
        twin.unite(first, second, why)
    return twin
