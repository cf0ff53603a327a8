"""Rehearse a removal on a copy: find sizes that the model's own code has fixed, and what to do about each.

The copy from which channels were removed is traced again; where its run leaves the first one's track, one of three
things helps: an integer attribute of a module that counts those channels gets its new value, a split axis is followed
along another of its dimensions, or the channels are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .build import Numbering, numbering
from .classes import class_of_label, members
from .copying import named_tensors
from .glance import Glance, takes_by_number
from .notes import AttributeNote, Notes, Record, Split
from .plane import Plane
from .replay import DeviationError, Replay, ReplayNotes, UnfollowedError
from .resize import fit_sizes, replace_data
from .tracer import Tracer

Flow = Callable[[Tracer, nn.Module], None]


def sample(labels: Numbering, uses: list[Tensor]) -> Tensor:
    """A few channels of every class, of different numbers, to try a removal with; at least two stay of each."""
    dead = torch.zeros(len(labels.frozen), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    group = class_of_label([labels.labels[ids] for ids in uses], labels.frozen)
    for number, channels in enumerate(members(group)):
        count = 1 + number % 3 if len(channels) > 8 else int(len(channels) > 2)
        dead[channels[torch.randperm(len(channels), generator=generator, device="cpu")[:count]]] = True
    dead[(labels.frozen >= 0)] = False
    dead[0] = False
    return dead


@dataclass(frozen=True)
class Stage:
    """What a rehearsal needs: `fresh` makes a copy of the model, `flow` runs a copy under a tracer."""

    fresh: Callable[[], nn.Module]
    flow: Flow
    look: Callable[[Glance, nn.Module], None]
    repairs: Repairs

    def at_a_glance(self, notes: Notes, numbers: Numbering, dead: Tensor) -> bool:
        """Whether shapes alone show that a removal works; False says nothing."""
        if takes_by_number(notes):
            return False
        glance, copy = Glance(notes.sequence, numbers.labels, dead), self.fresh()
        shrink(notes, numbers, dead, copy)
        try:
            self.look(glance, copy)
        except Exception:  # the full rehearsal finds out what it is
            return False
        return glance.fits and glance.step == len(notes.sequence)

    def rehearse(self, notes: Notes, numbers: Numbering, dead: Tensor) -> DeviationError | None:
        """Remove `dead` from a copy and run it again; the deviation from the first run, None if there is none."""
        replay = Replay(notes.records, numbers.labels, dead)
        copy = self.fresh()
        shrink(notes, numbers, dead, copy)
        try:
            self.flow(Tracer(ReplayNotes(notes, numbers.labels, dead), replay=replay), copy)
        except DeviationError as deviation:
            return deviation
        except UnfollowedError:
            return None  # found out when channels that are zero go, which changes no values
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            last = max(0, min(replay.step, len(notes.records) - 1))
            return DeviationError(last, f"the thinned model fails: {type(error).__name__}: {str(error)[:120]}")
        return None if replay.step == len(notes.records) else DeviationError(replay.step, "the code ends early")


def shrink(notes: Notes, numbers: Numbering, dead: Tensor, copy: nn.Module) -> None:
    """Slice a copy's tensors and set its sizes."""
    stays = ~dead[numbers.labels]
    for name, tensor in named_tensors(copy).items():
        data = tensor.data
        for dim in range(tensor.ndim):
            ids = notes.ids.get((name, dim))
            left = None if ids is None else stays[ids].nonzero().flatten()
            if left is not None and len(left) < data.shape[dim]:
                data = data.index_select(dim, left.to(data.device))
        if data is not tensor.data and data.shape != tensor.shape:
            replace_data(tensor, data)
    fit_sizes(copy)
    for note in notes.attributes:
        note.set(copy.get_submodule(note.module), int((~dead[numbers.labels[note.ids]]).sum()))


class Repairs:
    """What to try at each deviation, most wanted first; remembers what was tried."""

    def __init__(self, notes: Notes, model: nn.Module) -> None:
        self.notes = notes
        self.model = model
        self._tried: set[Any] = set()
        self._trial: tuple[int, Callable[[], None]] | None = None

    def repair(self, deviation: DeviationError, numbers: Numbering, dead: Tensor) -> None:
        """Change the notes so that the next rehearsal gets further."""
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
        kind = self.notes.records[step].kind
        return step if kind[0].__module__.startswith("torch.") else kind

    def _alike(self, step: int) -> list[int]:
        """The same operation in all modules of the same class: what helps one is tried on all at once."""
        kind = self._kind(step)
        if kind == step:
            return [step]
        return [other for other in range(step, len(self.notes.records)) if self.notes.records[other].kind == kind]

    def _splits(self, step: int) -> Iterator[tuple[Any, Callable[[], None]]]:
        """Follow another axis of a split made here."""
        steps = set(self._alike(step))
        splits = [split for split in self.notes.splits if split.step in steps]
        for split in splits[:1] if splits and splits[0].step == step else []:
            for axis in reversed([dim for dim, size in enumerate(split.ids.shape) if size > 1]):
                yield ("split", self._kind(step), axis), partial(self._follow, splits, axis, step)

    def _follow(self, splits: list[Split], axis: int, step: int) -> None:
        before = [split.along for split in splits]

        def undo() -> None:
            for split, along in zip(splits, before, strict=True):
                split.along = along

        for split in splits:
            split.along = axis
        self._trial = (step, undo)

    def _attributes(self, step: int, numbers: Numbering, dead: Tensor) -> Iterator[Any]:
        """Integers of the modules around that equal a size which changes here: all of one module, then one by one."""
        depth = self.notes.records[step].module.count(".") + 2
        for level in range(depth):
            found = self._candidates(step, level, numbers, dead)
            choices = [found] + ([[note] for note in found] if len(found) > 1 else [])
            for chosen in choices if found else []:
                key = (self._kind(step), level, tuple((note.name, note.index) for note in chosen))
                yield key, partial(self._adopt, chosen, level, step, numbers, dead)

    def _candidates(self, step: int, level: int, numbers: Numbering, dead: Tensor) -> list[AttributeNote]:
        """What could count a size that changes at `step`, in the module `level` above the one that runs."""
        record = self.notes.records[step]
        path = _ancestor(record.module, level)
        found: dict[tuple[str, int | None], AttributeNote] = {}
        for size in _sizes(record, Replay(self.notes.records, numbers.labels, dead)):
            if path is not None and bool(dead[numbers.labels[size.ids]].any()):
                for name, index in self._matches(path, size, len(record.made)):
                    found.setdefault((name, index), AttributeNote(path, name, index, size.ids))
        return list(found.values())

    def _adopt(self, notes: list[AttributeNote], level: int, step: int, numbers: Numbering, dead: Tensor) -> None:
        before = list(self.notes.attributes)
        wanted = {(note.name, note.index) for note in notes}
        for other in self._alike(step):
            similar = self._candidates(other, level, numbers, dead)
            self.notes.attributes += [note for note in similar if (note.name, note.index) in wanted]
        self._trial = (step, lambda: self.notes.attributes.__setitem__(slice(None), before))

    def _matches(self, path: str, size: Size, parts: int) -> Iterator[tuple[str, int | None]]:
        taken = {(note.name, note.index) for note in self.notes.attributes if note.module == path}
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
            module = self.notes.records[start].module
            for step in range(start, -1, -1):
                if start != deviation.step and self.notes.records[step].module != module:
                    break
                if touched := self._touched(step, numbers, dead):
                    found |= start == deviation.step
                    for plane in touched:
                        self.notes.freeze(plane.ids, f"{self.notes.records[step].place}: {deviation.why}")
                    break
        if not found:
            for ids in self.notes.ids.values():
                self.notes.freeze(ids, deviation.why)

    def _touched(self, step: int, numbers: Numbering, dead: Tensor) -> list[Plane]:
        record = self.notes.records[step]
        made = [plane for _, planes in record.made for plane in planes]
        change = [[p for p in planes if bool(dead[numbers.labels[p.ids]].any())] for planes in (made, record.read)]
        # of a recurrent layer the units first: it is mostly the state that has a fixed size, not the input
        return change[0] if change[0] and isinstance(record.func, type) else [*change[1], *change[0]]


@dataclass(frozen=True)
class Size:
    """An axis (its ids) of result number `part` of an operation, or of what lies before a cut; its old size."""

    ids: Tensor
    old: int
    part: int


def _sizes(record: Record, replay: Replay) -> Iterator[Size]:
    for part, (shape, planes) in enumerate(record.made):
        for plane in planes:
            for dim in plane.dims:
                yield Size(_axis(plane, dim), shape[dim], part)
    if "slice" in str(record.func) and record.arguments is not None:
        arguments = record.arguments
        for plane in record.read:
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


def settle_sizes(notes: Notes, stage: Stage) -> Numbering:
    """Rehearse a removal from every class until the run keeps its track; returns the final numbering."""
    numbers = numbering(notes)
    for _ in range(500):
        dead = sample(numbers, list(notes.ids.values()))
        if not bool(dead.any()) or stage.at_a_glance(notes, numbers, dead):
            break
        deviation = stage.rehearse(notes, numbers, dead)
        if deviation is None:
            break
        stage.repairs.repair(deviation, numbers, dead)
        numbers = numbering(notes)
    return numbers
