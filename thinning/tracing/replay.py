"""Compare a second run, of a model from which channels were removed, with the first: operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .labels import Plane
from .log import AttributeCount, Made, MeanOver, Operation, TraceLog
from .numbering import Numbering
from .rules.fallback import NEW


@dataclass(frozen=True)
class Deviation:
    """A second run left the first one's track at operation number `step`, or just before it.

    The latter where other code failed: in the module `module`, at `place`.
    """

    step: int
    why: str
    module: str | None = None
    place: str = ""

    def text(self, operations: Sequence[Operation]) -> str:
        """Return where and why."""
        return f"{self.place or operations[self.step].place}: {self.why}"

    def at_a_cut(self, cuts: Sequence[int]) -> Deviation:
        """Return the same for an operation that cuts channels at these numbers, which nothing that is known gives."""
        if not cuts:
            return self
        numbers = " and ".join(map(str, cuts))
        return replace(self, why=f"{self.why} (it cuts at {numbers}, which no integer of a module around counts)")


ANOTHER_PATH = "with fewer channels the model's code takes another path"


class DeviationError(Exception):
    """Ends a second run at its `deviation`."""

    def __init__(self, step: int, why: str) -> None:
        super().__init__(why)
        self.deviation = Deviation(step, why)


class UnequalRowsError(Exception):
    """A number of groups in a second run is not that of the groups that are left."""


class UnfollowedError(Exception):
    """What comes now depends on the data, which removing channels that are not zero has changed."""


class Replay:
    """The first run's operations and which labels are removed; each operation must give exactly what is left over."""

    def __init__(self, operations: Sequence[Operation], numbers: Numbering, dead: Tensor) -> None:
        self.operations = operations
        self.labels = numbers.labels
        self.shared = numbers.shared
        self.dead = dead
        self.step = 0
        self.inside = False
        self.data_read = False

    def begin(self, func: Any, module: str) -> None:
        """Check before an operation that it is the one that the first run carried out here, in the same module."""
        # Branches on sizes (`if x.shape[1] % 8`) take another path in the thinned model: the channels must stay then.
        # Where data decides, the removal of channels that are not zero proves nothing.
        due = self.operations[self.step] if self.step < len(self.operations) else None
        if due is None or due.func is not func or due.module != module:
            if self.data_read:
                raise UnfollowedError
            raise DeviationError(min(self.step, len(self.operations) - 1), ANOTHER_PATH)
        self.inside = True

    def end(self, made: Made) -> None:
        """Check after an operation that shapes and channels are what is left of the first run's."""
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
            repeated = {dim for plane in before if self._is_shared(plane) for dim in plane.dims}
            before = tuple(plane for plane in before if not self._is_shared(plane))
            expected = self.expected_shape(old, before)
            if len(shape) == len(old):
                expected = tuple(shape[dim] if dim in repeated else size for dim, size in enumerate(expected))
            if shape != expected and self._depends_on_data(operation, shape, expected, before):
                raise UnfollowedError
            if shape != expected or not all(self._agrees(plane, planes) for plane in before):
                raise DeviationError(self.step, "a size is fixed in the model's code")
        self.step += 1

    @staticmethod
    def _depends_on_data(
        operation: Operation, shape: Sequence[int], expected: Sequence[int], planes: Sequence[Plane]
    ) -> bool:
        """Return whether the sizes differ only where an operation such as `nonzero` takes them from values."""
        # A wrong size along a channel dimension is never the data's doing; along others (boxes, words) it may be.
        channels = {dim for plane in planes for dim in plane.dims}
        differ = {dim for dim, (a, b) in enumerate(zip(shape, expected, strict=False)) if a != b}
        foreign = getattr(operation.func, "namespace", "aten") not in ("aten", "prims")
        dynamic = foreign or torch.Tag.dynamic_output_shape in getattr(operation.func, "tags", ())
        return dynamic and len(shape) == len(expected) and not differ & channels

    def _is_shared(self, plane: Plane) -> bool:
        """Return whether a plane repeats what serves all, as often as there are users left."""
        return plane.ids.numel() > 1 and bool(self.shared[self.labels[plane.ids]].all())

    def left(self, ids: Tensor, dim: int) -> Tensor:
        """Return which indices of a dimension are left, as bools."""
        gone = self.dead[self.labels[ids]]
        others = [d for d in range(ids.ndim) if d != dim]
        return ~(gone.all(others) if others else gone).reshape(-1)

    def expected_shape(self, shape: Sequence[int], planes: Sequence[Plane]) -> tuple[int, ...]:
        """Return the shape of a tensor after removal."""
        sizes = list(shape)
        for plane in planes:
            for dim in plane.dims:
                sizes[dim] = int(self.left(plane.ids, dim).sum())
        return tuple(sizes)

    def _agrees(self, plane: Plane, planes: Sequence[Plane]) -> bool:
        # Shapes alone do not show that the right channels are left: `x[:, :6]` gives 6 of them before and after. So the
        # labels are compared too.
        twin = next((other for other in planes if set(other.dims) & set(plane.dims)), None)
        if twin is None:
            return True  # a single channel is left: it is no longer followed
        expected = self.labels[plane.ids]
        for dim in plane.dims:
            expected = expected.index_select(dim, self.left(plane.ids, dim).nonzero().flatten())
        # A plane may be stored more compactly after the removal, never larger.
        if any(size not in (1, other) for size, other in zip(twin.ids.shape, expected.shape, strict=True)):
            return False
        return bool(((self.labels[twin.ids] == expected) | (twin.ids == 0)).all()) and not bool(
            self.dead[expected].any()
        )


class ReplayLog(TraceLog):
    """Notes of a second run: parameters get the integers that are left, and nothing is written down."""

    def __init__(self, first: TraceLog, numbers: Numbering, replay: Replay) -> None:
        super().__init__()
        self._labels, self._free = numbers.labels, numbers.frozen < 0
        self._replay = replay
        self._left = {key: ids[replay.left(ids, 0)] for key, ids in first.ids.items()}
        self._new = {step: [ids[replay.left(ids, 0)] for ids in made] for step, made in first.new.items()}
        self.batch = first.batch

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
