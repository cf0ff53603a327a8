"""Compare a second run, of a model from which channels were removed, with the first: operation by operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, compress
from typing import Any

import torch
from torch import Tensor

from .deviation import ANOTHER_NUMBER, ANOTHER_PATH, DeviationError, UnequalRowsError, UnfollowedError
from .entries import AttributeCount, Made, MeanOver, Operation
from .labels import Plane
from .log import TraceLog
from .numbering import Numbering
from .rules.fallback import NEW
from .values_read import ValuesRead


def _stays(gone: Tensor, dim: int) -> Tensor:
    """Return which indices of a dimension have channels that stay, as bools."""
    others = [d for d in range(gone.ndim) if d != dim]
    return ~(gone.all(others) if others else gone)


@dataclass(frozen=True)
class Left:
    """What a removal leaves of a tensor of ids: its `labels`.

    `whole`: nothing goes. `clean`: nothing that goes is left, where channels depend on several dimensions. `shared`: it
    repeats what serves all, as often as there are users left.
    """

    labels: Tensor
    whole: bool
    clean: bool
    shared: bool


@dataclass(frozen=True)
class Removal:
    """The removal of the labels `dead`; `ids` are the integers of each dimension of a parameter."""

    ids: Mapping[tuple[str, int], Tensor]
    numbers: Numbering
    dead: Tensor

    @cached_property
    def stays(self) -> Tensor:
        """Which ids stay, as bools."""
        return ~self.dead[self.numbers.labels]

    @cached_property
    def kept(self) -> dict[tuple[str, int], Tensor]:
        """Which indices of a dimension stay, of those from which some go."""
        # In one go, as there are hundreds of dimensions.
        gone = (~self.stays)[torch.cat([*self.ids.values(), torch.zeros(0).long()])].cumsum(0)
        ends = torch.tensor([0, *accumulate(map(len, self.ids.values()))])
        before = torch.cat((gone.new_zeros(1), gone))[ends].tolist()
        some = [key for number, key in enumerate(self.ids) if before[number] < before[number + 1]]
        return {key: self.stays[self.ids[key]].nonzero().flatten() for key in some}

    @cached_property
    def shrunk(self) -> dict[str, list[int]]:
        """The dimensions from which some go, by the name of the parameter."""
        found: dict[str, list[int]] = {}
        for name, dim in self.kept:
            found.setdefault(name, []).append(dim)
        return found

    @cached_property
    def left(self) -> dict[tuple[str, int], Tensor]:
        """The integers that stay of each dimension."""
        return {key: ids[self.kept[key]] if key in self.kept else ids for key, ids in self.ids.items()}

    def left_of(self, ids: Tensor) -> Left:
        """Return what is left of a tensor of ids, one that a log holds."""
        # Planes of many operations have the same ids, and the first run's log holds them: their identity is a key.
        if id(ids) not in self._found:
            labels = self.numbers.labels[ids]
            gone = self.dead[labels]
            whole = not bool(gone.any())
            shared = self._any_shared and ids.numel() > 1 and bool(self.numbers.shared[labels].all())
            if not whole:
                for dim in [dim for dim, size in enumerate(ids.shape) if size > 1]:
                    labels = labels.index_select(dim, _stays(gone, dim).nonzero().flatten())
            clean = whole or not bool(self.dead[labels].any())
            self._found[id(ids)] = Left(labels, whole, clean, shared)
        return self._found[id(ids)]

    @cached_property
    def _any_shared(self) -> bool:
        return bool(self.numbers.shared.any())

    @cached_property
    def _found(self) -> dict[int, Left]:
        return {}


class Replay:
    """The first run's operations and which labels are removed; each operation must give exactly what is left over."""

    def __init__(self, operations: Sequence[Operation], removal: Removal, values: ValuesRead) -> None:
        self.values = values
        self.operations = operations
        self.removal = removal
        self.labels = removal.numbers.labels
        self._agreed: dict[tuple[int, int], Tensor] = {}
        self.step = 0
        self.inside = False

    def begin(self, func: Any, module: str) -> None:
        """Check before an operation that it is the one that the first run carried out here, in the same module."""
        # Branches on sizes (`if x.shape[1] % 8`) take another path in the thinned model: the channels must stay then.
        # Where data decides, the removal of channels that are not zero proves nothing.
        due = self.operations[self.step] if self.step < len(self.operations) else None
        if due is None or due.func is not func or due.module != module:
            if self.values.differ:
                raise UnfollowedError
            raise DeviationError(min(self.step, len(self.operations) - 1), ANOTHER_PATH)
        self.inside = True

    def end(self, made: Made, numbers: tuple[float, ...], labelled: bool = True) -> None:
        """Check after an operation that shapes and channels are what is left of the first run's, numbers the same.

        Not the channels unless what was made is `labelled`.
        """
        operation = self.operations[self.step]
        self.inside = False
        if len(made) != len(operation.made):
            raise DeviationError(self.step, "another number of parts")
        for part, ((shape, planes), (old, before)) in enumerate(zip(made, operation.made, strict=True)):
            # What depends on labels is compared; what does not may differ, as indices of maxima do.
            if (part and not before) or getattr(operation.func, "overloadpacket", None) in NEW:
                continue  # by-products, such as the saved statistics of a norm; tensors of sizes that the code read
            if 0 in shape and 0 in old:
                continue  # nothing in it has a size that matters
            shared = [self.removal.left_of(plane.ids).shared for plane in before]
            repeated = {dim for plane in compress(before, shared) for dim in plane.dims}
            before = tuple(plane for plane, serves in zip(before, shared, strict=True) if not serves)
            expected = self.expected_shape(old, before)
            if len(shape) == len(old):
                expected = tuple(shape[dim] if dim in repeated else size for dim, size in enumerate(expected))
            if shape != expected and self._depends_on_data(operation, shape, expected, before):
                raise UnfollowedError
            if shape != expected or not (not labelled or all(self._agrees(plane, planes) for plane in before)):
                raise DeviationError(self.step, "a size is fixed in the model's code")
        if numbers != operation.numbers and not self.values.differ:  # numbers that were values differ as values do
            raise DeviationError(self.step, ANOTHER_NUMBER)
        self.step += 1

    def _depends_on_data(
        self, operation: Operation, shape: Sequence[int], expected: Sequence[int], planes: Sequence[Plane]
    ) -> bool:
        """Return whether the sizes differ only where an operation (`nonzero`) or the code takes them from values."""
        # A wrong size along a channel dimension is never the data's doing; along others (boxes, words) it may be.
        channels = {dim for plane in planes for dim in plane.dims}
        differ = {dim for dim, (a, b) in enumerate(zip(shape, expected, strict=False)) if a != b}
        foreign = getattr(operation.func, "namespace", "aten") not in ("aten", "prims")
        dynamic = self.values.differ or foreign or torch.Tag.dynamic_output_shape in getattr(operation.func, "tags", ())
        return dynamic and len(shape) == len(expected) and not differ & channels

    def expected_shape(self, shape: Sequence[int], planes: Sequence[Plane]) -> tuple[int, ...]:
        """Return the shape of a tensor after removal."""
        sizes = list(shape)
        for plane in planes:
            left = self.removal.left_of(plane.ids)
            for dim in () if left.whole else plane.dims:
                sizes[dim] = left.labels.shape[dim]
        return tuple(sizes)

    def _agrees(self, plane: Plane, planes: Sequence[Plane]) -> bool:
        # Shapes alone do not show that the right channels are left: `x[:, :6]` gives 6 of them before and after. So the
        # labels are compared too.
        twin = next((other for other in planes if set(other.dims) & set(plane.dims)), None)
        if twin is None:
            return True  # a single channel is left: it is no longer followed
        pair = id(plane.ids), id(twin.ids)
        if pair not in self._agreed:
            left = self.removal.left_of(plane.ids)
            # A plane may be stored more compactly after the removal, never larger.
            if any(size not in (1, other) for size, other in zip(twin.ids.shape, left.labels.shape, strict=True)):
                return False
            same = (self.labels[twin.ids] == left.labels) | (twin.ids == 0)
            if not left.clean or not bool(same.all()):
                return False
            self._agreed[pair] = twin.ids  # held, so that no other tensor gets its identity
        return True


class ReplayLog(TraceLog):
    """Notes of a second run: parameters get the integers that are left, and nothing is written down."""

    def __init__(self, first: TraceLog, removal: Removal, replay: Replay) -> None:
        super().__init__()
        self._labels, self._free = removal.numbers.labels, removal.numbers.frozen < 0
        self._replay = replay
        self._left = removal.left
        self._new = {step: [ids[removal.stays[ids]] for ids in made] for step, made in first.new.items()}
        self.batch = first.batch
        # Of a parameter whose shape stays nothing goes.
        self.planes = {key: planes for key, planes in first.planes.items() if key[0] not in removal.shrunk}

    def ids_of(self, name: str, dim: int, size: int) -> Tensor:
        """Return the integers that are left of a parameter's dimension."""
        left = self._left.get((name, dim))
        return left if left is not None and len(left) == size else torch.zeros(size, dtype=torch.int64)

    def fresh(self, size: int) -> Tensor:
        """Return the integers that are left of those that the first run made in this operation, as many as asked for.

        No channels where they are of another number: tables that are shared are repeated as often as there are users.
        """
        # Without them a tensor that has no others would hold no channels here, and the steps would no longer agree.
        made = self._new.get(self._replay.step, [])
        number = next((number for number, ids in enumerate(made) if len(ids) == size), None)
        return torch.zeros(size, dtype=torch.int64) if number is None else made.pop(number)

    def unite(self, a: Tensor, b: Tensor, why: str) -> None:
        """Learn nothing: the results are compared."""

    def freeze(self, ids: Tensor, why: str) -> None:
        """Learn nothing."""

    def mark_inexact(self, ids: Tensor, why: str) -> None:
        """Learn nothing."""

    def split(self, ids: Tensor) -> None:
        """Learn nothing."""

    def mean(self, mean: MeanOver) -> None:
        """Learn nothing."""

    def groups(self, ids: Tensor, why: str, count: AttributeCount | None) -> None:
        """Check that rows are what is left of the first run's."""
        labels = self._labels[ids].sort(1).values
        # of rows that are frozen as a whole nothing goes, and their channels are not united
        if bool(self._free[labels].any()) and not bool((labels == labels[:, :1]).all() or (labels == labels[:1]).all()):
            raise UnequalRowsError("a number of groups is fixed in the model's code")

    def rows(self, ids: Tensor, shared: Tensor, why: str) -> None:
        """Learn nothing."""

    def link(self, ids: Tensor, shared: Tensor, why: str) -> None:
        """Learn nothing."""

    def operation(self, operation: Operation) -> None:
        """Learn nothing."""
