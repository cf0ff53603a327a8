"""Change a trace log after a removal that failed: count by an attribute, follow another axis of a split, freeze.

Each failed removal is answered with one change, the most wanted first, and tried again. A change that does not carry
the next removal further than this one is taken back; the last resort, freezing, always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..tracing.labels import Plane
from ..tracing.log import AttributeCount, Operation, SplitAxis, TraceLog
from ..tracing.numbering import Numbering
from ..tracing.replay import Deviation

Options = Iterator[tuple[Any, Callable[[], TraceLog]]]


@dataclass(frozen=True)
class Repairs:
    """What was tried so far; `pending` is the step of the last try, and the log as it was before."""

    model: nn.Module
    tried: frozenset[Any] = frozenset()
    pending: tuple[int, TraceLog] | None = None

    def repaired(self, failed: FailedRemoval) -> tuple[TraceLog, Repairs]:
        """Return a log with which the next removal gets further, and the repairs with this one remembered."""
        step = failed.deviation.step
        if self.pending is not None and step <= self.pending[0]:
            return self.pending[1], replace(self, pending=None)  # the last change did not help: without it again
        for key, change in failed.options(self.model):
            if key not in self.tried:
                return change(), replace(self, tried=self.tried | {key}, pending=(step, failed.log))
        return failed.frozen(), replace(self, pending=None)


@dataclass(frozen=True)
class FailedRemoval:
    """The removal of the labels `dead` that left the first run's track at `deviation`."""

    log: TraceLog
    numbers: Numbering
    dead: Tensor
    deviation: Deviation

    def options(self, model: nn.Module) -> Options:
        """Yield each change worth a try, with a key that says whether it was tried before."""
        yield from self._attributes(model)
        yield from self._splits()

    def frozen(self) -> TraceLog:
        """Freeze the channels that change in the operation, or in the nearest one before it where any do.

        The same is done for that operation in other modules of the class, there within the module.
        """
        log, failed = self.log.copy(), self.deviation.step
        found = False
        for start in self._alike():
            module = log.operations[start].module
            for step in range(start, -1, -1):
                if start != failed and log.operations[step].module != module:
                    break
                if touched := self._touched(step):
                    found |= start == failed
                    for plane in touched:
                        log.freeze(plane.ids, f"{log.operations[step].place}: {self.deviation.why}")
                    break
        if not found:
            for ids in log.ids.values():
                log.freeze(ids, self.deviation.why)
        return log

    @property
    def _kind(self) -> Any:
        """What is tried once for all modules of a class; torch's own modules are each a case of their own."""
        kind = self.log.operations[self.deviation.step].kind
        return self.deviation.step if kind[0].__module__.startswith("torch.") else kind

    def _alike(self) -> list[int]:
        """Return the steps of the same operation in all modules of the same class.

        What helps one is tried on all at once: a network of 50 equal blocks needs one repair, not 50.
        """
        step, kind = self.deviation.step, self._kind
        if kind == step:
            return [step]
        return [other for other in range(step, len(self.log.operations)) if self.log.operations[other].kind == kind]

    def _changes(self, ids: Tensor) -> bool:
        return bool(self.dead[self.numbers.labels[ids]].any())

    def _splits(self) -> Options:
        """Follow another axis of a split made here; the last is followed already."""
        steps = set(self._alike())
        here = next((split for split in self.log.splits if split.step in steps), None)
        if here is not None and here.step == self.deviation.step:
            for axis in reversed([dim for dim, size in enumerate(here.ids.shape) if size > 1]):
                yield ("split", self._kind, axis), partial(self._follow, steps, axis)

    def _follow(self, steps: set[int], axis: int) -> TraceLog:
        def turned(split: SplitAxis) -> SplitAxis:
            return replace(split, along=axis) if split.step in steps else split

        return self.log.copy(splits=[turned(split) for split in self.log.splits])

    def _attributes(self, model: nn.Module) -> Options:
        """Count by integers of the modules around that equal a size which changes: all of a module, then each."""
        step = self.deviation.step
        for level in range(self.log.operations[step].module.count(".") + 2):
            found = self._candidates(model, step, level)
            choices = [found] + ([[one] for one in found] if len(found) > 1 else [])
            for chosen in choices if found else []:
                names = {(count.name, count.index): None for count in chosen}
                yield (self._kind, level, tuple(names)), partial(self._count_by, model, names, level)

    def _candidates(self, model: nn.Module, step: int, level: int) -> list[AttributeCount]:
        """What could count a size that changes at `step`, in the module `level` above the one that runs."""
        operation = self.log.operations[step]
        path = _ancestor(operation.module, level)
        found: dict[tuple[str, int | None], AttributeCount] = {}
        for size in _sizes(operation):
            if path is not None and self._changes(size.ids):
                for name, index in self._matches(model, path, size, len(operation.made)):
                    found.setdefault((name, index), AttributeCount(path, name, index, size.ids))
        return list(found.values())

    def _count_by(self, model: nn.Module, names: dict[tuple[str, int | None], None], level: int) -> TraceLog:
        counts = [count for step in self._alike() for count in self._candidates(model, step, level)]
        wanted = [count for count in counts if (count.name, count.index) in names]
        return self.log.copy(attributes=[*self.log.attributes, *wanted])

    def _matches(self, model: nn.Module, path: str, size: Size, parts: int) -> Iterator[tuple[str, int | None]]:
        """Yield the attributes (name, index) of a module that equal a size and are not known to count another."""
        taken = {(count.name, count.index) for count in self.log.attributes if count.module == path}
        for key, value in vars(_submodule(model, path)).items():
            if key.startswith("_"):
                continue
            if type(value) is int and value == size.old and (key, None) not in taken:
                yield key, None
            elif isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
                for index, item in enumerate(value):
                    aligned = len(value) != parts or index == size.part
                    if item == size.old and aligned and (key, index) not in taken:
                        yield key, index

    def _touched(self, step: int) -> list[Plane]:
        """Return the planes of an operation in which channels change, those to freeze first."""
        operation = self.log.operations[step]
        made = [plane for _, planes in operation.made for plane in planes]
        change = [[plane for plane in planes if self._changes(plane.ids)] for planes in (made, operation.read)]
        # of a recurrent layer the units first: it is mostly the state that has a fixed size, not the input
        return change[0] if change[0] and isinstance(operation.func, type) else [*change[1], *change[0]]


@dataclass(frozen=True)
class Size:
    """An axis (its ids) of result number `part` of an operation, or of what lies before a cut; its old size."""

    ids: Tensor
    old: int
    part: int


def _sizes(operation: Operation) -> Iterator[Size]:
    for part, (shape, planes) in enumerate(operation.made):
        for plane in planes:
            for dim in plane.dims:
                yield Size(_axis(plane, dim), shape[dim], part)
    if "slice" in str(operation.func) and operation.arguments is not None:
        arguments = operation.arguments
        for plane in operation.read:
            dim = arguments[1] if len(arguments) > 1 else 0
            for cut in arguments[2:4]:
                if isinstance(cut, int) and 0 < cut < plane.ids.shape[dim]:
                    yield Size(_axis(plane, dim)[:cut], cut, 0)


def _axis(plane: Plane, dim: int) -> Tensor:
    ids = plane.ids
    for other in range(ids.ndim):
        if other != dim:
            ids = ids.narrow(other, 0, 1)
    return ids.reshape(-1)


def _submodule(model: nn.Module, path: str) -> Any:
    try:
        return model.get_submodule(path)
    except RuntimeError:  # a scripted module, whose sizes are part of its code
        return nn.Module()


def _ancestor(path: str, level: int) -> str | None:
    """Return the path of the module `level` steps above; None above the model."""
    parts = path.split(".") if path else []
    return None if level > len(parts) else ".".join(parts[: len(parts) - level])
