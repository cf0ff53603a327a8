"""A removal that failed in a rehearsal: where, which channels it concerns, and what freezing them leaves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..tracing.deviation import Deviation
from ..tracing.entries import AttributeCount
from ..tracing.labels import Plane
from ..tracing.log import TraceLog
from ..tracing.numbering import Numbering
from .names_read import NamesRead
from .sizes import Size, ancestor, cuts_of, later_sizes, within

Names = tuple[str, frozenset[tuple[str, int | None]]]
"""A module, by its path, and attributes of it."""


@dataclass(frozen=True)
class FailedRemoval:
    """The removal of the labels `dead` that left the first run's track at `deviation`; `after` it the log was this.

    `names` are those that the model's code looks up.
    """

    log: TraceLog
    numbers: Numbering
    dead: Tensor
    deviation: Deviation
    names: NamesRead
    after: TraceLog | None = None

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
        operation = self.log.operations[self.steps[0]]
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
        return any(map(self._touched, self.steps))

    def names_around(self, counts: list[AttributeCount]) -> Names:
        """Return the module around the operation that failed some of whose attributes count, and those."""
        found = [count for count in counts if count.module in self._around]
        path = found[0].module if found else ""
        return path, frozenset((count.name, count.index) for count in found if count.module == path)

    @property
    def _around(self) -> set[str | None]:
        module = self.log.operations[self.steps[0]].module
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
        for start in self.alike(here) if everywhere else ():
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
    def steps(self) -> list[int]:
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
        kind = self.kind_of(self.steps[-1])
        return kind[:-1] if isinstance(kind, tuple) else kind

    def kind_of(self, step: int) -> Any:
        """Return what is tried once for all modules of a class; torch's own modules are each a case of their own."""
        kind = self.log.operations[step].kind
        return step if kind[0].__module__.startswith("torch.") else kind

    def alike(self, step: int) -> list[int]:
        """Return the steps of the same operation in all modules of the same class.

        What helps one is tried on all at once: a network of 50 equal blocks needs one repair, not 50.
        """
        kind = self.kind_of(step)
        if kind == step:
            return [step]
        return [other for other in range(step, len(self.log.operations)) if self.log.operations[other].kind == kind]

    def later(self, step: int) -> list[Size]:
        """Return the axes that the module of an operation makes later of its channels."""
        # Asked for each module around and each kind of numbers, and slow where planes are large.
        if step not in self._known_later:
            self._known_later[step] = list(later_sizes(self.log, step, self.numbers.labels))
        return self._known_later[step]

    @cached_property
    def _known_later(self) -> dict[int, list[Size]]:
        return {}

    def changes(self, ids: Tensor) -> bool:
        """Return whether any of these channels goes."""
        return bool(self.dead[self.numbers.labels[ids]].any())

    def _touched(self, step: int) -> list[Plane]:
        """Return the planes of an operation in which channels change, those to freeze first."""
        operation = self.log.operations[step]
        made = [plane for _, planes in operation.made for plane in planes]
        change = [[plane for plane in planes if self.changes(plane.ids)] for planes in (made, operation.read)]
        # of a recurrent layer the units first: it is mostly the state that has a fixed size, not the input
        return change[0] if change[0] and isinstance(operation.func, type) else [*change[1], *change[0]]
