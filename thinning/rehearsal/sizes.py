"""Sizes of an operation that change with its channels, and integers of the modules around that equal them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import entries_within, is_size
from ..module_sizes import sizes_of
from ..running.copies import INTERNAL
from ..tracing.entries import AttributeCount, Operation
from ..tracing.labels import Plane, firsts
from ..tracing.log import TraceLog

Slot = tuple[Any, ...]
"""Which size of an operation: the same in all modules of a class."""


AHEAD, FAR = 8, 32
"""So many operations further on the parts of what an operation makes are looked at; so many for other axes of it."""


@dataclass(frozen=True)
class Size:
    """A number of channels (their ids) in an operation; `part` is the number of the result, None of none.

    `slot` names it for the same operation of other modules; of parts of one size, `equal` are the channels that
    must go together if one number stands for all of them.
    """

    slot: Slot
    ids: Tensor
    part: int | None = None
    equal: Tensor | None = None

    @property
    def old(self) -> int:
        """Return the size before any removal."""
        return self.ids.numel()


def direct_sizes(operation: Operation) -> Iterator[Size]:
    """Yield the axes of an operation's results, and what lies before a cut."""
    for part, (_, planes) in enumerate(operation.made):
        for number, plane in enumerate(planes):
            for dim in plane.dims:
                yield Size(("made", part, number, dim), axis_of(plane, dim), part)
    for number, (axis, cut) in enumerate(cuts_of(operation)):
        yield Size(("before", number), axis[:cut])


def further_sizes(log: TraceLog, step: int) -> Iterator[Size]:
    """Yield what the code may compute those sizes from: the axes that go in, rests, products, parts taken later."""
    operation = log.operations[step]
    for number, plane in enumerate(operation.read):
        for dim in plane.dims:
            yield Size(("read", number, dim), axis_of(plane, dim))
    for number, (axis, cut) in enumerate(cuts_of(operation)):
        yield Size(("after", number), axis[cut:])
    for part, (_, planes) in enumerate(operation.made):
        for number, plane in enumerate(planes):
            # `view(b, heads * width)` is written with a product, which an attribute may hold (`embed_dim`).
            for first, last in _runs(plane):
                block = firsts(plane.ids, set(range(plane.ids.ndim)) - set(range(first, last + 1))).reshape(-1)
                yield Size(("product", part, number, first, last), block)
    for number, later in enumerate(log.operations[step + 1 : step + 1 + AHEAD]):
        # `heads + 2` rows, of which the last two are taken off: the code holds the number of the others
        if later.module == operation.module and _takes_part(later):
            for plane in (plane for _, planes in later.made for plane in planes):
                yield from (Size(("then", number, dim), axis_of(plane, dim)) for dim in plane.dims)
    rows = (split for split in log.splits if len(split.choices) > 1)
    for number, split in enumerate(s for s in rows if log.operations[s.step].module == operation.module):
        for dim in range(split.ids.ndim):
            yield Size(("rows", number, dim), firsts(split.ids, {1 - dim}).reshape(-1))


def later_sizes(log: TraceLog, step: int, labels: Tensor) -> Iterator[Size]:
    """Yield the axes that the module makes later of the same channels: a size may be computed with their numbers too.

    A row of `2 * width + values * width // keys` for each of `keys` heads: only later are the values a number of heads.
    """
    operation = log.operations[step]
    made = [plane for _, planes in operation.made for plane in planes]
    mine = torch.zeros(int(labels.max()) + 1 if len(labels) else 1, dtype=torch.bool)
    for plane in made:
        mine[labels[plane.ids]] = True
    for number, later in enumerate(log.operations[step + 1 : step + 1 + FAR]):
        for plane in (plane for _, planes in later.made for plane in planes if later.module == operation.module):
            if len(plane.dims) > 1 and bool(mine[labels[plane.ids]].all()):
                yield from (Size(("later", number, dim), axis_of(plane, dim)) for dim in plane.dims)


def equal_sizes(operation: Operation) -> Iterator[Size]:
    """Yield sizes of parts that one number gives: parts of equal size, and a whole that is cut into such."""
    parts = [axis_of(plane, dim) for _, planes in operation.made[:8] for plane in planes for dim in plane.dims]
    alike = [axis for axis in parts if parts[0].numel() == axis.numel()]
    if len(alike) > 1:
        yield Size(("parts",), alike[0], equal=_stacked(alike))
    for number, (axis, cut) in enumerate(cuts_of(operation)):
        if axis.numel() % cut == 0:
            yield Size(("halves", number), axis, equal=axis.reshape(-1, cut))


def _stacked(axes: list[Tensor]) -> Tensor:
    first = axes[0].new_empty(len(axes), axes[0].numel())
    for row, axis in zip(first, axes, strict=True):
        row.copy_(axis)
    return first


def _takes_part(operation: Operation) -> bool:
    return "slice" in str(operation.func) and operation.arguments is not None


def cuts_of(operation: Operation) -> Iterator[tuple[Tensor, int]]:
    """Yield the axis and the number of each cut of a slice."""
    if not _takes_part(operation):
        return
    arguments = operation.arguments
    for plane in operation.read:
        dim = arguments[1] if len(arguments) > 1 else 0
        size = plane.ids.shape[dim]
        for cut in arguments[2:4]:
            # A cut at an end cuts nothing; a negative one counts from the end, which moves along.
            if isinstance(cut, int) and 0 < abs(cut) < size:
                yield axis_of(plane, dim), cut % size


def _runs(plane: Plane) -> Iterator[tuple[int, int]]:
    """Yield the first and last dimension of every run of neighbouring axes, those over which the plane varies."""
    dims = plane.dims
    for i in range(len(dims)):
        for j in range(i + 1, len(dims)):
            yield dims[i], dims[j]


def axis_of(plane: Plane, dim: int) -> Tensor:
    """Return the ids along a dimension, at the first index of the others."""
    return firsts(plane.ids, set(range(plane.ids.ndim)) - {dim}).reshape(-1)


def own_numbers(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a module keeps by name, but what follows from its parameters' shapes: that is known already."""
    known = sizes_of(module)
    yield from ((name, value) for name, value in vars(module).items() if name not in known)


def held_numbers(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield what dicts and plain objects hold that a module keeps: `config.width`, `config.text.width`."""
    for name, value in vars(module).items():
        if name not in INTERNAL:
            yield from entries_within(name, value)


def every_number(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield both."""
    yield from own_numbers(module)
    yield from held_numbers(module)


Numbers = Callable[[Any], Iterator[tuple[str, Any]]]


def matches(module: Any, size: Size, parts: int, numbers: Numbers) -> Iterator[tuple[str, int | None]]:
    """Yield the attributes (name, index of its element) among the numbers of a module that equal a size."""
    for key, value in numbers(module):
        if type(value) is int:
            if value == size.old and is_size(module, key):
                yield key, None
        elif isinstance(value, (list, tuple)) and all(type(item) is int for item in value) and size.old in value:
            for index, item in enumerate(value if is_size(module, key) else ()):
                if item == size.old and (len(value) != parts or size.part in (index, None)):
                    yield key, index


def submodule(model: nn.Module, path: str) -> Any:
    """Return a module by its path; an empty one for a scripted module, whose sizes are part of its code."""
    try:
        return model.get_submodule(path)
    except RuntimeError:
        return nn.Module()


def ancestor(path: str, level: int) -> str | None:
    """Return the path of the module `level` steps above; None above the model."""
    parts = path.split(".") if path else []
    return None if level > len(parts) else ".".join(parts[: len(parts) - level])


def within(path: str, module: str) -> bool:
    """Return whether a path is that of a module, or of one in it."""
    return not module or path == module or path.startswith(f"{module}.")


def count_of(path: str, name: str, index: int | None, size: Size) -> AttributeCount:
    """Return the note that an attribute counts the channels of a size."""
    return AttributeCount(path, name, index, size.ids)
