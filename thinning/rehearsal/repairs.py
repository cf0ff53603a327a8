"""What helps a removal that leaves its track: adopt an attribute, follow another axis of a split, freeze."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..tracing.labels import Plane
from ..tracing.log import AttributeCount, Operation, SplitAxis, TraceLog
from ..tracing.numbering import Numbering
from ..tracing.replay import DeviationError, Replay


class Repairs:
    """What to try at each deviation, most wanted first; remembers what was tried."""

    def __init__(self, log: TraceLog, model: nn.Module) -> None:
        self.log = log
        self.model = model
        self._tried: set[Any] = set()
        self._trial: tuple[int, Callable[[], None]] | None = None

    def repair(self, deviation: DeviationError, numbers: Numbering, dead: Tensor) -> None:
        """Change the log so that the next rehearsal gets further."""
        if self._trial is not None:
            step, undo = self._trial
            self._trial = None
            if deviation.step <= step:
                undo()
                return
        for key, act in self._options(deviation, numbers, dead):
            if key not in self._tried:
                self._tried.add(key)
                act()
                return
        self._freeze(deviation, numbers, dead)

    def _options(
        self, deviation: DeviationError, numbers: Numbering, dead: Tensor
    ) -> Iterator[tuple[Any, Callable[[], None]]]:
        yield from self._attributes(deviation.step, numbers, dead)
        yield from self._splits(deviation.step)

    def _kind(self, step: int) -> Any:
        """What is tried once for all modules of a class; torch's own modules are each a case of their own."""
        kind = self.log.operations[step].kind
        return step if kind[0].__module__.startswith("torch.") else kind

    def _alike(self, step: int) -> list[int]:
        """The same operation in all modules of the same class: what helps one is tried on all at once."""
        kind = self._kind(step)
        if kind == step:
            return [step]
        return [other for other in range(step, len(self.log.operations)) if self.log.operations[other].kind == kind]

    def _splits(self, step: int) -> Iterator[tuple[Any, Callable[[], None]]]:
        """Follow another axis of a split made here."""
        steps = set(self._alike(step))
        splits = [split for split in self.log.splits if split.step in steps]
        for split in splits[:1] if splits and splits[0].step == step else []:
            for axis in reversed([dim for dim, size in enumerate(split.ids.shape) if size > 1]):
                yield ("split", self._kind(step), axis), partial(self._follow, splits, axis, step)

    def _follow(self, splits: list[SplitAxis], axis: int, step: int) -> None:
        before = [split.along for split in splits]

        def undo() -> None:
            for split, along in zip(splits, before, strict=True):
                split.along = along

        for split in splits:
            split.along = axis
        self._trial = (step, undo)

    def _attributes(self, step: int, numbers: Numbering, dead: Tensor) -> Iterator[Any]:
        """Integers of the modules around that equal a size which changes here: all of one module, then one by one."""
        depth = self.log.operations[step].module.count(".") + 2
        for level in range(depth):
            found = self._candidates(step, level, numbers, dead)
            choices = [found] + ([[entry] for entry in found] if len(found) > 1 else [])
            for chosen in choices if found else []:
                key = (self._kind(step), level, tuple((entry.name, entry.index) for entry in chosen))
                yield key, partial(self._adopt, chosen, level, step, numbers, dead)

    def _candidates(self, step: int, level: int, numbers: Numbering, dead: Tensor) -> list[AttributeCount]:
        """What could count a size that changes at `step`, in the module `level` above the one that runs."""
        operation = self.log.operations[step]
        path = _ancestor(operation.module, level)
        found: dict[tuple[str, int | None], AttributeCount] = {}
        for size in _sizes(operation, Replay(self.log.operations, numbers.labels, dead)):
            if path is not None and bool(dead[numbers.labels[size.ids]].any()):
                for name, index in self._matches(path, size, len(operation.made)):
                    found.setdefault((name, index), AttributeCount(path, name, index, size.ids))
        return list(found.values())

    def _adopt(self, log: list[AttributeCount], level: int, step: int, numbers: Numbering, dead: Tensor) -> None:
        before = list(self.log.attributes)
        wanted = {(entry.name, entry.index) for entry in log}
        for other in self._alike(step):
            similar = self._candidates(other, level, numbers, dead)
            self.log.attributes += [entry for entry in similar if (entry.name, entry.index) in wanted]
        self._trial = (step, lambda: self.log.attributes.__setitem__(slice(None), before))

    def _matches(self, path: str, size: Size, parts: int) -> Iterator[tuple[str, int | None]]:
        taken = {(entry.name, entry.index) for entry in self.log.attributes if entry.module == path}
        for key, value in vars(_submodule(self.model, path)).items():
            if key.startswith("_"):
                continue
            if type(value) is int and value == size.old and (key, None) not in taken:
                yield key, None
            elif isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
                for index, item in enumerate(value):
                    aligned = len(value) != parts or index == size.part
                    if item == size.old and aligned and (key, index) not in taken:
                        yield key, index

    def _freeze(self, deviation: DeviationError, numbers: Numbering, dead: Tensor) -> None:
        """Freeze the channels that change in the operation, or in the nearest one before it where any do.

        The same is done for that operation in other modules of the class, there within the module.
        """
        found = False
        for start in self._alike(deviation.step):
            module = self.log.operations[start].module
            for step in range(start, -1, -1):
                if start != deviation.step and self.log.operations[step].module != module:
                    break
                if touched := self._touched(step, numbers, dead):
                    found |= start == deviation.step
                    for plane in touched:
                        self.log.freeze(plane.ids, f"{self.log.operations[step].place}: {deviation.why}")
                    break
        if not found:
            for ids in self.log.ids.values():
                self.log.freeze(ids, deviation.why)

    def _touched(self, step: int, numbers: Numbering, dead: Tensor) -> list[Plane]:
        operation = self.log.operations[step]
        made = [plane for _, planes in operation.made for plane in planes]
        change = [[p for p in planes if bool(dead[numbers.labels[p.ids]].any())] for planes in (made, operation.read)]
        # of a recurrent layer the units first: it is mostly the state that has a fixed size, not the input
        return change[0] if change[0] and isinstance(operation.func, type) else [*change[1], *change[0]]


@dataclass(frozen=True)
class Size:
    """An axis (its ids) of result number `part` of an operation, or of what lies before a cut; its old size."""

    ids: Tensor
    old: int
    part: int


def _sizes(operation: Operation, replay: Replay) -> Iterator[Size]:
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
    """The module `level` steps above; None above the model."""
    parts = path.split(".") if path else []
    return None if level > len(parts) else ".".join(parts[: len(parts) - level])
