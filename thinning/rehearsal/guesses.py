"""What may be changed after a removal that failed in a rehearsal, the likely first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import torch
from torch import nn

from ..attributes import twins
from ..tracing.deviation import ANOTHER_NUMBER
from ..tracing.entries import SplitAxis
from ..tracing.log import TraceLog
from .choices import Match, choices, different
from .failed_removal import FailedRemoval, Names
from .sizes import (
    Numbers,
    Size,
    ancestor,
    count_of,
    direct_sizes,
    equal_sizes,
    every_number,
    further_sizes,
    held_numbers,
    matches,
    own_numbers,
    submodule,
)
from .together import alongside, of_count, of_rounds, united

NONE: Names = "", frozenset()
Options = Iterator[tuple[Any, Names, Callable[[], TraceLog]]]
"""A key, the attributes that would change, and how."""

MOST_ALONGSIDE = 4
"""So many others are tried to go with channels that fail: each costs a run of a copy, the likely ones come first."""


@dataclass(frozen=True)
class Guesses:
    """The changes that are worth a try after a failed removal from a model."""

    failed: FailedRemoval
    model: nn.Module

    def __iter__(self) -> Options:
        """Yield each change worth a try, with a key that says whether it was tried before."""
        if self.failed.deviation.why == ANOTHER_NUMBER:
            return  # no size is wrong here
        for step in self.failed.steps:
            yield from self._attributes(step, own_numbers)
            yield from self._rounds(step)
            yield from self._splits(step)
            yield from self._unions(step)
            yield from self._counted(step)
        for step in self.failed.steps:
            yield from self._attributes(step, held_numbers)
        # Last: widths that are equal by chance would go together for nothing.
        for step in self.failed.steps:
            yield from self._alongside(step)

    def _splits(self, step: int) -> Options:
        """Yield: follow another axis of a split made here; the last is followed already."""
        steps = set(self.failed.alike(step))
        # The first split of the step stands for those of all modules of the class: they are turned together.
        here = next((split for split in self.failed.log.splits if split.step in steps and not split.choices), None)
        if here is not None and here.step == step:
            for axis in reversed(self._fitting_axes(here.ids.shape)):
                yield ("split", self.failed.kind_of(step), axis), NONE, partial(self._follow, steps, axis)

    def _fitting_axes(self, shape: Sequence[int]) -> list[int]:
        """Return the axes of a split that may be followed, given the shape that the code asked for.

        Of one that is followed the others keep their size: code that asks for another gets that from elsewhere.
        """
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        told = re.search(r"shape '\[([-\d, ]+)\]' is invalid", self.failed.deviation.why)
        asked = [int(size) for size in told[1].split(",")] if told else []
        if len(asked) != len(shape):
            return axes
        return [axis for axis in axes if all(asked[dim] in (-1, shape[dim]) for dim in axes if dim != axis)]

    def _follow(self, steps: set[int], axis: int) -> TraceLog:
        def turned(split: SplitAxis) -> SplitAxis:
            return replace(split, along=axis) if split.step in steps and not split.choices else split

        return self.failed.log.copy(splits=[turned(split) for split in self.failed.log.splits])

    def _attributes(self, step: int, numbers: Numbers) -> Options:
        """Yield: count by integers of the modules around that equal sizes which change."""
        for level in range(self.failed.log.operations[step].module.count(".") + 2):
            direct, further, later = (self._matches(level, step, numbers, sizes) for sizes in self._changing(step))
            for chosen in choices(direct, further, later, self.failed.numbers.labels):
                names = {(match.name, match.index): match.size.slot for match in chosen}
                change = partial(self._count_by, step, level, names)
                yield (self.failed.kind_of(step), level, tuple(names.items())), self._named(step, level, *names), change

    def _changing(self, step: int) -> tuple[list[Size], list[Size], list[Size]]:
        """Return the sizes of an operation that change: its own, those around and later ones."""
        if step not in self._known_changing:
            around = further_sizes(self.failed.log, step)
            sizes = direct_sizes(self.failed.log.operations[step]), around, self.failed.later(step)
            direct, further, later = ([size for size in of if self.failed.changes(size.ids)] for of in sizes)
            self._known_changing[step] = direct, further, later
        return self._known_changing[step]

    @cached_property
    def _known_changing(self) -> dict[int, tuple[list[Size], list[Size], list[Size]]]:
        return {}

    def _named(self, step: int, level: int, *names: tuple[str, int | None]) -> Names:
        return ancestor(self.failed.log.operations[step].module, level) or "", frozenset(names)

    def _matches(self, level: int, step: int, numbers: Numbers, sizes: Iterable[Size]) -> list[Match]:
        """Return the attributes of the module `level` above that equal a size.

        Only those that are read, and not known yet.
        """
        operation = self.failed.log.operations[step]
        path = ancestor(operation.module, level)
        if path is None:
            return []
        # One attribute counts one thing: what has an answer is no guess any more.
        taken = {(count.name, count.index) for count in self.failed.log.counts if count.module == path}
        return different(
            Match(name, index, size)
            for size in sizes
            for name, index in matches(submodule(self.model, path), size, len(operation.made), numbers)
            if (name, index) not in taken and self._read(path, name)
        )

    def _read(self, path: str, name: str) -> bool:
        """Return whether code may read what a module keeps under a name."""
        own, *entries = name.split(".")
        names = self.failed.names
        if entries and any(names.of(path, twin) for twin in twins(submodule(self.model, path), own)):
            return True  # pairs are read in a loop, none by its name
        return names.of(path, own) and all(map(names.anywhere, entries))

    def _count_by(self, step: int, level: int, names: dict[tuple[str, int | None], Any]) -> TraceLog:
        counts = []
        for other in self.failed.alike(step):
            operation = self.failed.log.operations[other]
            path = ancestor(operation.module, level)
            near = (*direct_sizes(operation), *further_sizes(self.failed.log, other))
            later = self.failed.later(other) if any(slot[0] == "later" for slot in names.values()) else ()
            sizes = {size.slot: size for size in (*near, *later)}
            for (name, index), slot in names.items() if path is not None else ():
                size, module = sizes.get(slot), submodule(self.model, path or "")
                if size is not None and (name, index) in set(matches(module, size, len(operation.made), every_number)):
                    counts.append(count_of(path or "", name, index, size))
        taken = {(count.module, count.name, count.index) for count in self.failed.log.attributes}
        new = {(c.module, c.name, c.index): c for c in reversed(counts)}
        return self.failed.log.copy(
            attributes=[*self.failed.log.attributes, *(new[key] for key in new if key not in taken)]
        )

    def _unions(self, step: int) -> Options:
        """Yield: let channels go together whose sizes one number gives, counted by it where it is known."""
        for level in range(self.failed.log.operations[step].module.count(".") + 2):
            equal = [s for s in equal_sizes(self.failed.log.operations[step]) if self.failed.changes(s.ids)]
            for match in self._matches(level, step, own_numbers, equal):
                # What goes together may no longer change the number: no reason to leave it out.
                key = self.failed.kind_of(step), level, match.name, match.size.slot
                yield key, NONE, partial(self._unite, step, level, match)

    def _unite(self, step: int, level: int, match: Match) -> TraceLog:
        log, rows = self.failed.log.copy(), match.size.equal
        # One number is the size of all parts (`c // 2`): they have it afterwards only if the same positions go in each.
        if rows is not None:
            log.unite(rows, rows[:1], f"{log.operations[step].place}: parts of one size")
        path = ancestor(log.operations[step].module, level) or ""
        log.attributes.append(count_of(path, match.name, match.index, match.size))
        return log

    def _rounds(self, step: int) -> Options:
        """Yield: let channels go together that one number counts in each round of a loop, where it is known of one."""
        line = self.failed.log.operations[step].kind
        pairs = list(of_rounds(self.failed.log, self.failed.numbers.labels, line)) if line[-1] > 1 else []
        if pairs and self.failed.kind_of(step) != step:
            yield ("rounds", line[:-1]), NONE, partial(united, self.failed.log, pairs)

    def _counted(self, step: int) -> Options:
        """Yield: let channels go together with those that an attribute of a module around counts, of equal number.

        Not where another attribute has that number too: then the first may have been taken for the other.
        """
        operation = self.failed.log.operations[step]
        for level in range(operation.module.count(".") + 2):
            path = ancestor(operation.module, level)
            counts = [count for count in self.failed.log.counts if count.module == path]
            numbers = [value for _, value in own_numbers(submodule(self.model, path or ""))] if counts else []
            for count, size in product(counts, direct_sizes(operation) if counts else ()):
                labels = self.failed.numbers.labels[count.ids]
                equal = size.old == len(labels) and not torch.equal(self.failed.numbers.labels[size.ids], labels)
                if equal and numbers.count(size.old) == 1 and self.failed.changes(size.ids):
                    pairs = list(of_count(self.failed.log, self.failed.alike(step), level, count, size.slot))
                    key = self.failed.kind_of(step), level, count.name, count.index, size.slot, "counted"
                    yield key, NONE, partial(united, self.failed.log, pairs)

    def _alongside(self, step: int) -> Options:
        """Yield: let channels go together with as many others before, of which the code may take the number."""
        told = set(re.findall(r"\d+", self.failed.deviation.why))
        pairs = alongside(self.failed.log, self.failed.numbers.labels, step)
        left = [str(int((~self.failed.dead[self.failed.numbers.labels[ids]]).sum())) for _, ids, _ in pairs]
        # Code that failed tells the size that it wanted: that of the others, of whom another number went.
        for number in sorted(range(len(left)), key=lambda number: left[number] not in told)[:MOST_ALONGSIDE]:
            yield (self.failed.kind_of(step), "alongside", number), NONE, partial(self._accompany, step, number)

    def _accompany(self, step: int, number: int) -> TraceLog:
        pairs = (alongside(self.failed.log, self.failed.numbers.labels, other) for other in self.failed.alike(step))
        return united(self.failed.log, [pair for found in pairs for pair in found[number : number + 1]])
