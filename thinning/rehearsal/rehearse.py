"""Rehearse a removal on a copy: find sizes that the model's own code has fixed, and what to do about each.

The copy from which channels were removed is traced again; where its run leaves the first one's track, one of three
things helps: an integer attribute of a module that counts those channels gets its new value, a split axis is followed
along another of its dimensions, or the channels are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..label_sets import class_of_label, members
from ..module_sizes import fit_sizes, replace_data, set_size
from ..running.copies import named_tensors
from ..tracing.log import TraceLog
from ..tracing.numbering import Numbering, counting, numbering
from ..tracing.replay import Deviation, DeviationError, Removal, Replay, ReplayLog, UnfollowedError
from ..tracing.tracer import Tracer
from .names_read import NamesRead
from .repairs import FailedRemoval, Repairs
from .shapes_only import ShapeRun, takes_by_number

MOST_REPAIRS = 500
"""A bound on the search for fixed sizes; each repair freezes or counts something new, so it ends long before."""


@dataclass(frozen=True)
class Rehearsal:
    """The means to run a removal on a copy: `fresh` makes one, `trace` runs it traced, `run` in another context."""

    fresh: Callable[[], nn.Module]
    trace: Callable[[Tracer, nn.Module], None]
    run: Callable[[AbstractContextManager[Any], nn.Module], None]

    @cached_property
    def names(self) -> NamesRead:
        """The names that the model's code looks up, found by a run when first asked."""
        names = NamesRead()
        with suppress(Exception):  # a run that is not traced may fail; then all names count
            self.run(names, self.fresh())
        return names

    def shapes_agree(self, log: TraceLog, removal: Removal) -> bool:
        """Return whether shapes alone show that a removal works; False says nothing."""
        # Shapes alone cannot tell which channels a slice took; without such operations equal shapes at every step say
        # all. This is the usual case for convolutional networks, and much faster than tracing again.
        if takes_by_number(log):
            return False
        shapes, copy = ShapeRun(log.sequence, removal.numbers.labels, removal.dead), self.fresh()
        shrink(log, removal, copy)
        try:
            self.run(shapes, copy)
        except Exception:  # the full rehearsal finds out what it is
            return False
        return shapes.fits and shapes.step == len(log.sequence)

    def failure(self, log: TraceLog, removal: Removal) -> FailedRemoval | None:
        """Carry a removal out on a copy and run it again; return how that failed, None if it kept the first's track."""
        deviation = self._deviation(log, removal)
        return None if deviation is None else FailedRemoval(log, removal.numbers, removal.dead, deviation, self.names)

    def _deviation(self, log: TraceLog, removal: Removal) -> Deviation | None:
        replay = Replay(log.operations, removal)
        copy = self.fresh()
        shrink(log, removal, copy)
        tracer = Tracer(ReplayLog(log, removal, replay), replay=replay)
        try:
            self.trace(tracer, copy)
        except DeviationError as error:
            return error.deviation
        except UnfollowedError:
            return None  # found out when channels that are zero go, which changes no values
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            last = max(0, min(replay.step, len(log.operations) - 1))
            why = f"the thinned model fails: {type(error).__name__}: {str(error)[:120]}"
            operation, module = log.operations[last], tracer.frame.name
            inside = replay.inside or (isinstance(operation.func, type) and operation.module == module)
            return Deviation(last, why, None if inside else module, tracer.place)
        return None if replay.step == len(log.operations) else Deviation(replay.step, "the code ends early")


def shrink(log: TraceLog, removal: Removal, copy: nn.Module) -> None:
    """Slice a copy's tensors and set its sizes."""
    tensors = named_tensors(copy)
    for name, dims in removal.shrunk.items():
        tensor = tensors[name]
        kept = {dim: removal.kept[name, dim] for dim in dims}
        if tensor.is_meta:  # sooner than torch selects, and no graph points to a tensor without numbers
            shape = [len(kept[dim]) if dim in kept else size for dim, size in enumerate(tensor.shape)]
            tensor.data = tensor.new_empty(shape)
        else:
            data = tensor.data
            for dim, indices in kept.items():
                data = data.index_select(dim, indices.to(data.device))
            replace_data(tensor, data)
    fit_sizes(copy)
    for count in counting(log, removal.numbers):
        left = int(removal.stays[count.ids].sum())
        set_size(copy.get_submodule(count.module), count.name, left, count.index)


def sample(numbers: Numbering, uses: list[Tensor], aligned: Sequence[tuple[Tensor, int]] = ()) -> Tensor:
    """Return a few channels of every class, of different numbers, to try a removal with; at least two stay of each.

    Different numbers (1, 2 or 3 of the larger classes) tell apart two sizes that are equal before the removal.
    """
    dead = torch.zeros(len(numbers.frozen), dtype=torch.bool)
    # At random and not the first ones: code that takes the first half of the channels works with a removal from the
    # second half only by chance.
    generator = torch.Generator().manual_seed(0)
    group = class_of_label([numbers.labels[ids] for ids in uses], numbers.frozen)
    multiples = torch.ones(len(dead), dtype=torch.int64)
    for ids, multiple in aligned:
        multiples[numbers.labels[ids]] = multiple
    for number, channels in enumerate(members(group)):
        count = 1 + number % 3 if len(channels) > 8 else int(len(channels) > 2)
        count *= int(multiples[channels].max()) if len(channels) else 0
        count = count if count < len(channels) else 0
        dead[channels[torch.randperm(len(channels), generator=generator, device="cpu")[:count]]] = True
    dead[(numbers.frozen >= 0)] = False
    dead[0] = False
    return dead


def find_fixed_sizes(log: TraceLog, rehearsal: Rehearsal, repairs: Repairs) -> tuple[TraceLog, Numbering, Repairs]:
    """Rehearse a removal from every class, and repair, until the run keeps its track."""
    # Channels that are not dead are removed here, so values change; what is compared is the path, the shapes and which
    # channels are where. Values are compared at the end, by verify, on the channels that are dead.
    numbers = numbering(log)
    removal = sampled(log, numbers)
    for _ in range(MOST_REPAIRS):
        if not bool(removal.dead.any()) or rehearsal.shapes_agree(log, removal):
            break
        failure = rehearsal.failure(log, removal)
        if failure is None:
            break
        before = log
        log, repairs = repairs.repaired(failure)
        if not log.same_channels(before):
            numbers = numbering(log)
            removal = sampled(log, numbers)
    return log, numbers, repairs


def sampled(log: TraceLog, numbers: Numbering) -> Removal:
    """Return a removal of a few channels of every class."""
    return Removal(log.ids, numbers, sample(numbers, list(log.ids.values()), log.aligned))
