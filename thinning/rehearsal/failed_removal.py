"""A removal that failed in a rehearsal, and what may be changed for the next one to get further."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..attributes import twins
from ..tracing.labels import Plane
from ..tracing.log import AttributeCount, SplitAxis, TraceLog
from ..tracing.numbering import Numbering
from ..tracing.replay import ANOTHER_NUMBER, Deviation
from .choices import Match, choices, different
from .sizes import (
    Numbers,
    Size,
    ancestor,
    count_of,
    cuts_of,
    direct_sizes,
    equal_sizes,
    every_number,
    further_sizes,
    held_numbers,
    later_sizes,
    matches,
    own_numbers,
    submodule,
    within,
)
from .together import alongside, of_count, of_rounds, united

Names = tuple[str, frozenset[tuple[str, int | None]]]
"""A module, by its path, and attributes of it."""
NONE: Names = "", frozenset()
Options = Iterator[tuple[Any, Names, Callable[[], TraceLog]]]
"""A key, the attributes that would change, and how."""

MOST_ALONGSIDE = 4
"""So many others are tried to go with channels that fail: each costs a run of a copy, the likely ones come first."""


@dataclass(frozen=True)
class FailedRemoval:
    """The removal of the labels `dead` that left the first run's track at `deviation`; `after` it the log was this.

    `names` are those that the model's code looks up.
    """

    log: TraceLog
    numbers: Numbering
    dead: Tensor
    deviation: Deviation
    names: Container[str]
    after: TraceLog | None = None

    def options(self, model: nn.Module) -> Options:
        """Yield each change worth a try, with a key that says whether it was tried before."""
        if self.deviation.why == ANOTHER_NUMBER:
            return  # no size is wrong here
        for step in self._steps:
            yield from self._attributes(model, step, own_numbers)
            yield from self._rounds(step)
            yield from self._splits(step)
            yield from self._unions(model, step)
            yield from self._counted(model, step)
        for step in self._steps:
            yield from self._attributes(model, step, held_numbers)
        # Last: widths that are equal by chance would go together for nothing.
        for step in self._steps:
            yield from self._alongside(step)

    @property
    def cuts(self) -> list[int]:
        """Return where the operation that failed cuts an axis of channels."""
        return [cut for _, cut in cuts_of(self.log.operations[self.deviation.step])]

    def concerns(self, change: FailedRemoval) -> bool:
        """Return whether an earlier change counts channels that fail now, or by an attribute of the value of a size.

        The latter of a module around, which the operation may have been meant to be counted by.
        """
        here = self._nearest()
        planes = [] if here is None else self._touched(here)
        failing = torch.cat([self.numbers.labels[plane.ids].reshape(-1) for plane in planes] or [torch.zeros(0).long()])
        failing = failing[self.dead[failing]]
        operation = self.log.operations[self._steps[0]]
        sizes = {size for shape, _ in operation.made for size in shape}
        around = self._around
        return any(
            bool(torch.isin(self.numbers.labels[count.ids], failing).any())
            or (count.module in around and len(count.ids) in sizes)
            for count in change.counts()
        )

    @property
    def touched(self) -> bool:
        """Return whether the operation that failed has channels that change."""
        return any(map(self._touched, self._steps))

    def names_around(self, counts: list[AttributeCount]) -> Names:
        """Return the module around the operation that failed some of whose attributes count, and those."""
        found = [count for count in counts if count.module in self._around]
        path = found[0].module if found else ""
        return path, frozenset((count.name, count.index) for count in found if count.module == path)

    @property
    def _around(self) -> set[str | None]:
        module = self.log.operations[self._steps[0]].module
        return {ancestor(module, level) for level in range(module.count(".") + 2)} - {None}

    def counts(self) -> list[AttributeCount]:
        """Return the attributes that the change after this failure added."""
        before = {id(count) for count in self.log.attributes}
        return [count for count in (self.after or self.log).attributes if id(count) not in before]

    def undone(self, log: TraceLog) -> TraceLog:
        """Return a later log without the change."""
        # By identity: two guesses may name the same attribute, and only this one's are taken back.
        added = {id(count) for count in self.counts()}
        return log.copy(attributes=[count for count in log.attributes if id(count) not in added])

    def frozen(self, reason: Deviation, everywhere: bool) -> TraceLog:
        """Freeze the channels that change in the operation, or in the nearest one before it where any do.

        With `everywhere` also for that operation in other modules of the class, there within the module.
        """
        log, here = self.log.copy(), self._nearest()
        # Nothing that changes was seen before the failure: any channel may be the cause, so none may go.
        if here is None:
            for ids in log.ids.values():
                log.freeze(ids, reason.text(log.operations))
            return log
        self._freeze(log, here, reason.text(log.operations))
        for start in self._alike(here) if everywhere else ():
            module = log.operations[start].module
            for step in range(start, -1, -1):
                if log.operations[step].module != module:
                    break
                if self._touched(step):
                    self._freeze(log, step, f"{log.operations[step].place}: {reason.why}")
                    break
        return log

    def _freeze(self, log: TraceLog, step: int, why: str) -> None:
        for plane in self._touched(step):
            log.freeze(plane.ids, why)

    def _nearest(self) -> int | None:
        """Return the operation whose channels made the removal fail.

        That is the one that left the track; where other code failed, the last one before in the module that ran, or
        in those inside it.
        """
        inside, before = self.deviation.module, range(self.deviation.step, -1, -1)
        if inside is not None:
            before = range(self.deviation.step - 1, -1, -1)
            for step in before:
                if within(self.log.operations[step].module, inside) and self._touched(step):
                    return step
        return next((step for step in before if self._touched(step)), None)

    @property
    def _steps(self) -> list[int]:
        """Return the operations whose sizes are looked at.

        Where other code of a module failed: the operation that it would have come to (`reshape` fails before it becomes
        a view), and the last one before.
        """
        due, here = self.deviation.step, self._nearest()
        if self.deviation.module is None or here is None:
            return [due]
        own = within(self.log.operations[due].module, self.deviation.module)
        return [due, here] if own and due != here else [here]

    @property
    def kind(self) -> Any:
        """Return the kind of the operation that failed, however often a loop came to it before."""
        kind = self._kind(self._steps[-1])
        return kind[:-1] if isinstance(kind, tuple) else kind

    def _kind(self, step: int) -> Any:
        """Return what is tried once for all modules of a class; torch's own modules are each a case of their own."""
        kind = self.log.operations[step].kind
        return step if kind[0].__module__.startswith("torch.") else kind

    def _alike(self, step: int) -> list[int]:
        """Return the steps of the same operation in all modules of the same class.

        What helps one is tried on all at once: a network of 50 equal blocks needs one repair, not 50.
        """
        kind = self._kind(step)
        if kind == step:
            return [step]
        return [other for other in range(step, len(self.log.operations)) if self.log.operations[other].kind == kind]

    def _changes(self, ids: Tensor) -> bool:
        return bool(self.dead[self.numbers.labels[ids]].any())

    def _splits(self, step: int) -> Options:
        """Yield: follow another axis of a split made here; the last is followed already."""
        steps = set(self._alike(step))
        # The first split of the step stands for those of all modules of the class: they are turned together.
        here = next((split for split in self.log.splits if split.step in steps and not split.choices), None)
        if here is not None and here.step == step:
            for axis in reversed([dim for dim, size in enumerate(here.ids.shape) if size > 1]):
                yield ("split", self._kind(step), axis), NONE, partial(self._follow, steps, axis)

    def _follow(self, steps: set[int], axis: int) -> TraceLog:
        def turned(split: SplitAxis) -> SplitAxis:
            return replace(split, along=axis) if split.step in steps and not split.choices else split

        return self.log.copy(splits=[turned(split) for split in self.log.splits])

    def _attributes(self, model: nn.Module, step: int, numbers: Numbers) -> Options:
        """Yield: count by integers of the modules around that equal sizes which change."""
        for level in range(self.log.operations[step].module.count(".") + 2):
            found = partial(self._matches, model, level, step, numbers)
            direct = found(direct_sizes(self.log.operations[step]))
            further = found(further_sizes(self.log, step))
            later = found(self._later(step))
            for chosen in choices(direct, further, later, self.numbers.labels):
                names = {(match.name, match.index): match.size.slot for match in chosen}
                change = partial(self._count_by, model, step, level, names)
                yield (self._kind(step), level, tuple(names.items())), self._named(step, level, *names), change

    def _named(self, step: int, level: int, *names: tuple[str, int | None]) -> Names:
        return ancestor(self.log.operations[step].module, level) or "", frozenset(names)

    def _later(self, step: int) -> list[Size]:
        # Asked for each module around and each kind of numbers, and slow where planes are large.
        if step not in self._known_later:
            self._known_later[step] = list(later_sizes(self.log, step, self.numbers.labels))
        return self._known_later[step]

    @cached_property
    def _known_later(self) -> dict[int, list[Size]]:
        return {}

    def _matches(self, model: nn.Module, level: int, step: int, numbers: Numbers, sizes: Iterable[Size]) -> list[Match]:
        """Return the attributes of the module `level` above that equal a size which changes.

        Only those that are read, and not known yet.
        """
        operation = self.log.operations[step]
        path = ancestor(operation.module, level)
        if path is None:
            return []
        # One attribute counts one thing: what has an answer is no guess any more.
        taken = {(count.name, count.index) for count in self.log.counts if count.module == path}
        return different(
            Match(name, index, size)
            for size in sizes
            if self._changes(size.ids)
            for name, index in matches(submodule(model, path), size, len(operation.made), numbers)
            if (name, index) not in taken and self._read(submodule(model, path), name)
        )

    def _read(self, module: nn.Module, name: str) -> bool:
        """Return whether code may read what a module keeps under a name."""
        own, *entries = name.split(".")
        if entries and any(twin in self.names for twin in twins(module, own)):
            return True  # pairs are read in a loop, none by its name
        return all(part in self.names for part in (own, *entries))

    def _count_by(self, model: nn.Module, step: int, level: int, names: dict[tuple[str, int | None], Any]) -> TraceLog:
        counts = []
        for other in self._alike(step):
            operation = self.log.operations[other]
            path = ancestor(operation.module, level)
            near = (*direct_sizes(operation), *further_sizes(self.log, other))
            later = self._later(other) if any(slot[0] == "later" for slot in names.values()) else ()
            sizes = {size.slot: size for size in (*near, *later)}
            for (name, index), slot in names.items() if path is not None else ():
                size, module = sizes.get(slot), submodule(model, path or "")
                if size is not None and (name, index) in set(matches(module, size, len(operation.made), every_number)):
                    counts.append(count_of(path or "", name, index, size))
        taken = {(count.module, count.name, count.index) for count in self.log.attributes}
        new = {(c.module, c.name, c.index): c for c in reversed(counts)}
        return self.log.copy(attributes=[*self.log.attributes, *(new[key] for key in new if key not in taken)])

    def _unions(self, model: nn.Module, step: int) -> Options:
        """Yield: let channels go together whose sizes one number gives, counted by it where it is known."""
        for level in range(self.log.operations[step].module.count(".") + 2):
            for match in self._matches(model, level, step, own_numbers, equal_sizes(self.log.operations[step])):
                # What goes together may no longer change the number: no reason to leave it out.
                key = self._kind(step), level, match.name, match.size.slot
                yield key, NONE, partial(self._unite, step, level, match)

    def _unite(self, step: int, level: int, match: Match) -> TraceLog:
        log, rows = self.log.copy(), match.size.equal
        # One number is the size of all parts (`c // 2`): they have it afterwards only if the same positions go in each.
        if rows is not None:
            log.unite(rows, rows[:1], f"{log.operations[step].place}: parts of one size")
        path = ancestor(log.operations[step].module, level) or ""
        log.attributes.append(count_of(path, match.name, match.index, match.size))
        return log

    def _rounds(self, step: int) -> Options:
        """Yield: let channels go together that one number counts in each round of a loop, where it is known of one."""
        line = self.log.operations[step].kind
        pairs = list(of_rounds(self.log, self.numbers.labels, line)) if line[-1] > 1 else []
        if pairs and self._kind(step) != step:
            yield ("rounds", line[:-1]), NONE, partial(united, self.log, pairs)

    def _counted(self, model: nn.Module, step: int) -> Options:
        """Yield: let channels go together with those that an attribute of a module around counts, of equal number.

        Not where another attribute has that number too: then the first may have been taken for the other.
        """
        operation = self.log.operations[step]
        for level in range(operation.module.count(".") + 2):
            path = ancestor(operation.module, level)
            counts = [count for count in self.log.counts if count.module == path]
            numbers = [value for _, value in own_numbers(submodule(model, path or ""))] if counts else []
            for count, size in product(counts, direct_sizes(operation) if counts else ()):
                labels = self.numbers.labels[count.ids]
                equal = size.old == len(labels) and not torch.equal(self.numbers.labels[size.ids], labels)
                if equal and numbers.count(size.old) == 1 and self._changes(size.ids):
                    pairs = list(of_count(self.log, self._alike(step), level, count, size.slot))
                    key = self._kind(step), level, count.name, count.index, size.slot, "counted"
                    yield key, NONE, partial(united, self.log, pairs)

    def _alongside(self, step: int) -> Options:
        """Yield: let channels go together with as many others before, of which the code may take the number."""
        told = set(re.findall(r"\d+", self.deviation.why))
        pairs = alongside(self.log, self.numbers.labels, step)
        left = [str(int((~self.dead[self.numbers.labels[ids]]).sum())) for _, ids, _ in pairs]
        # Code that failed tells the size that it wanted: that of the others, of whom another number went.
        for number in sorted(range(len(left)), key=lambda number: left[number] not in told)[:MOST_ALONGSIDE]:
            yield (self._kind(step), "alongside", number), NONE, partial(self._accompany, step, number)

    def _accompany(self, step: int, number: int) -> TraceLog:
        pairs = (alongside(self.log, self.numbers.labels, other) for other in self._alike(step))
        return united(self.log, [pair for found in pairs for pair in found[number : number + 1]])

    def _touched(self, step: int) -> list[Plane]:
        """Return the planes of an operation in which channels change, those to freeze first."""
        operation = self.log.operations[step]
        made = [plane for _, planes in operation.made for plane in planes]
        change = [[plane for plane in planes if self._changes(plane.ids)] for planes in (made, operation.read)]
        # of a recurrent layer the units first: it is mostly the state that has a fixed size, not the input
        return change[0] if change[0] and isinstance(operation.func, type) else [*change[1], *change[0]]
