"""What a trace writes down: integers, unions, freezes, layers, reads."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..graph import Role
from ..label_sets import components
from .entries import AttributeCount, LayerCall, Link, MeanOver, Operation, Read, Rescale, SplitAxis, Step, WeightNorm
from .labels import Plane, firsts


class TraceLog:
    """Collects what the rules say. Ids start at 1."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: dict[tuple[str, int], Tensor] = {}
        self.planes: dict[tuple[str, torch.Size], tuple[Plane, ...]] = {}
        self.new: dict[int, list[Tensor]] = {}
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.frozen: list[tuple[Tensor, int]] = []
        self.inexact: list[tuple[Tensor, int]] = []
        self.reasons: list[str] = []
        self.roles: dict[tuple[str, int], Role] = {}
        self.aligned: list[tuple[Tensor, int]] = []
        self.means: list[MeanOver] = []
        self.rescales: list[Rescale] = []
        self.weight_norms: list[WeightNorm] = []
        self.layers: list[LayerCall] = []
        self.reads: list[Read] = []
        self.splits: list[SplitAxis] = []
        self.links: list[Link] = []
        self.operations: list[Operation] = []
        self.attributes: list[AttributeCount] = []
        self.sequence: list[Step] = []
        self.warnings: list[str] = []
        self.macs = 0
        self.other_macs = 0.0
        self._roots: tuple[tuple[int, int], Tensor] | None = None
        self.batch = 1

    def copy(self, **changes: Any) -> TraceLog:
        """Return a log with the same entries (but those of `changes`), to which others may be added."""
        # Lists are copied, their entries are shared: entries are never changed once the trace is done.
        twin = copy.copy(self)
        for name, value in (vars(self) | changes).items():
            setattr(twin, name, value.copy() if isinstance(value, (list, dict)) else value)
        return twin

    def same_channels(self, other: TraceLog) -> bool:
        """Return whether a copy of this log, or a copy of one, differs in attributes only."""
        channels = (self.pairs, other.pairs), (self.frozen, other.frozen), (self.splits, other.splits)
        return all(_identical(mine, others) for mine, others in channels)

    def same(self, other: TraceLog) -> bool:
        """Return whether the attributes are the same too."""
        return _identical(self.attributes, other.attributes) and self.same_channels(other)

    def ids_of(self, name: str, dim: int, size: int) -> Tensor:
        """Return the integers of a parameter's dimension; fresh ones the first time."""
        # Integers are given out once a parameter dimension, however often and in whichever module it is used: that is
        # what makes tied and shared weights one set of channels.
        key = (name, dim)
        if key not in self.ids:
            self.ids[key] = torch.arange(self.count + 1, self.count + size + 1)
            self.count += size
        return self.ids[key]

    def planes_of(self, name: str, tensor: Tensor) -> tuple[Plane, ...]:
        """Return the integers of a parameter beside its elements."""
        key = (name, tensor.shape)
        if key not in self.planes:
            found = []
            for dim, size in enumerate(tensor.shape):
                shape = [1] * tensor.ndim
                shape[dim] = size
                if size > 1:  # a dimension of size 1 cannot shrink
                    found.append(Plane(self.ids_of(name, dim, size).reshape(shape), leaf=(name, dim)))
            self.planes[key] = tuple(found)
        return self.planes[key]

    def fresh(self, size: int) -> Tensor:
        """Return integers of channels that no parameter has."""
        self.count += size
        ids = torch.arange(self.count - size + 1, self.count + 1)
        self.new.setdefault(len(self.operations), []).append(ids)
        return ids

    def unite(self, a: Tensor, b: Tensor, why: str) -> None:
        """Make two tensors of ids (of broadcastable shapes) the same channels; freeze what meets "no channel"."""
        if a is b:
            return
        if a.shape != b.shape and a.ndim == b.ndim:
            mine = [dim for dim, size in enumerate(a.shape) if size > 1 == b.shape[dim]]
            other = [dim for dim, size in enumerate(b.shape) if size > 1 == a.shape[dim]]
            if mine and other and bool(a.all()) and bool(b.all()):
                # All with all are one component, as each with the first of the others is: a sum, not a product.
                self.unite(a, firsts(b, other), why)
                self.unite(firsts(a, mine), b, why)
                return
        if a.shape != b.shape:
            a, b = torch.broadcast_tensors(a, b)
        # Pairs are only collected: one union-find over all of them at the end is a few vector operations.
        a, b = a.reshape(-1), b.reshape(-1)
        self.pairs.append((a, b))
        if bool(((a == 0) | (b == 0)).any()):
            self.pairs[-1] = (a[(a != 0) & (b != 0)], b[(a != 0) & (b != 0)])
            self.freeze(torch.cat((a[b == 0], b[a == 0])), why)

    def roots(self) -> Tensor:
        """Return the smallest id that each id (and 0) is united with."""
        # Rules ask now and then, so it is kept as long as no pair was added.
        if self._roots is None or self._roots[0] != (self.count, len(self.pairs)):
            self._roots = (self.count, len(self.pairs)), components(self.count + 1, self.pairs)
        return self._roots[1]

    def freeze(self, ids: Tensor, why: str) -> None:
        """Note that these channels can never be removed."""
        self.frozen.append((ids.reshape(-1), self._reason(why)))

    def mark_inexact(self, ids: Tensor, why: str) -> None:
        """Note that removing these channels changes a mean over the remaining ones."""
        self.inexact.append((ids.reshape(-1), self._reason(why)))

    def align(self, ids: Tensor, multiple: int) -> None:
        """Note channels of which a multiple has to stay, or the operation does not run."""
        if multiple > 1:
            self.aligned.append((ids.reshape(-1), multiple))

    def mean(self, mean: MeanOver) -> None:
        """Note that removing these channels changes a mean over the others, unless its module can make up for it."""
        self.means.append(mean)

    def _reason(self, why: str) -> int:
        # Rules freeze several planes for one reason in a row; most repetitions are neighbours.
        if not self.reasons or self.reasons[-1] != why:
            self.reasons.append(why)
        return len(self.reasons) - 1

    def role(self, leaf: tuple[str, int] | None, role: Role) -> None:
        """Give a parameter's dimension its part; the first word stands, except that "vector" yields."""
        # A tied weight makes channels here and reads them there; the first use names it in reports.
        if leaf is not None and self.roles.get(leaf, "vector") == "vector":
            self.roles[leaf] = role

    def read(self, read: Read) -> None:
        """Note that a sum over channels reads these."""
        self.reads.append(read)

    def split(self, ids: Tensor) -> None:
        """Note an axis of channels that was viewed as several axes."""
        self.splits.append(SplitAxis(ids, len(self.operations)))

    def groups(self, ids: Tensor, why: str, count: AttributeCount | None) -> None:
        """Note that each row of channels has one mean: whole rows go exactly, as many of each row do not."""
        # Rows are exact, since each mean keeps all of its values; as many of each row is the way that `allow_inexact`
        # opens.
        self.splits.append(SplitAxis(ids, len(self.operations), 0, (0, 1), None, self._reason(why), count))

    @property
    def counts(self) -> list[AttributeCount]:
        """The attributes that count channels."""
        # Of one attribute the count that was noted first stands: reversed, a dictionary keeps the first.
        rows = [split.count for split in self.splits if split.count is not None and split.first]
        return list({(c.module, c.name, c.index): c for c in reversed([*self.attributes, *rows])}.values())

    def rows(self, ids: Tensor, shared: Tensor, why: str) -> None:
        """Note rows of channels that meet one of `shared` each: rows go with it, or as many of each without it."""
        link = Link(ids, shared, self._reason(why))
        self.splits.append(SplitAxis(ids, len(self.operations), 0, (0, 1), link))

    def link(self, ids: Tensor, shared: Tensor, why: str) -> None:
        """Note channels that meet others that do not vary along one of their axes: see `Link`."""
        self.links.append(Link(ids, shared, self._reason(why)))

    def operation(self, operation: Operation) -> None:
        """Remember an operation for the comparison with a second run."""
        self.operations.append(operation)


def _identical(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(operator.is_, a, b))
