"""Rehearse a removal on a copy: find sizes that the model's own code has fixed, and what to do about each.

The copy from which channels were removed is traced again; where its run leaves the first one's track, one of three
things helps: an integer attribute of a module that counts those channels gets its new value, a split axis is followed
along another of its dimensions, or the channels are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..label_sets import class_of_label, members
from ..module_sizes import fit_sizes, replace_data, set_size
from ..running.copies import named_tensors
from ..tracing.deviation import Deviation, DeviationError, UnfollowedError
from ..tracing.log import TraceLog
from ..tracing.numbering import Numbering, counting, numbering
from ..tracing.replay import Removal, Replay, ReplayLog
from ..tracing.tracer import Tracer
from ..tracing.values_read import ValuesRead
from ..tracing.watcher import Watcher
from .names_read import NamesRead
from .repairs import FailedRemoval, Repairs
from .shapes_only import LostError, ShapeRun, takes_by_number

MOST_REPAIRS = 500
"""A bound on the search for fixed sizes; each repair freezes or counts something new, so it ends long before."""


@dataclass(frozen=True)
class Rehearsal:
    """The means to run a removal on a copy: `fresh` makes one, `trace` runs it traced, `run` in another context.

    `shapes_first`: a run that compares shapes alone is much faster. `computes`: runs are with numbers.
    """

    fresh: Callable[[], nn.Module]
    trace: Callable[[Tracer, nn.Module], None]
    run: Callable[[AbstractContextManager[Any], nn.Module], None]
    shapes_first: bool = True
    computes: bool = False

    @cached_property
    def names(self) -> NamesRead:
        """The names that the model's code looks up, found by a run when first asked."""
        names = NamesRead(copy := self.fresh())
        with suppress(Exception):  # a run that is not traced may fail; then all names count
            self.run(names, copy)
        return names

    def failure(self, log: TraceLog, removal: Removal) -> FailedRemoval | None:
        """Return how the removal fails, None if it does not."""
        deviation = self.deviation(log, removal)
        return None if deviation is None else FailedRemoval(log, removal.numbers, removal.dead, deviation, self.names)

    def deviation(self, log: TraceLog, removal: Removal) -> Deviation | None:
        """Carry a removal out on a copy and run it again; return where that left the first's track, None if nowhere."""
        # Most removals that fail do so by a shape.
        fits = False
        if self.shapes_first and not self._traced_only:
            with suppress(LostError, UnfollowedError):
                deviation, certain = self._by_shapes(log, removal)
                if deviation is None and certain and not takes_by_number(log):
                    return None
                # What a run that is not traced cannot do at all (mix devices, say) is no failure of the removal.
                if deviation is not None and not self.names.all:
                    return deviation
                fits = deviation is None
        deviation = self._by_channels(log, removal)
        return deviation if deviation is None else replace(deviation, fits=fits)

    @property
    def _traced_only(self) -> bool:
        """Return whether it is known that only runs that are traced get through."""
        return "names" in vars(self) and self.names.all

    def _by_shapes(self, log: TraceLog, removal: Removal) -> tuple[Deviation | None, bool]:
        """Return where shapes are not those that are left, and whether it is certain that there is nothing else."""
        copy = self.fresh()
        replay = Replay(log.operations, removal, ValuesRead(copy, self.computes))
        shrink(log, removal, copy)
        shapes = ShapeRun(log, replay)
        shapes.watch(copy)
        try:
            self.run(shapes, copy)
        except DeviationError as error:
            return error.deviation, False
        except (LostError, UnfollowedError):
            raise
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            return failed(error, replay, shapes), False
        if shapes.at < len(log.sequence):
            raise LostError
        return None, shapes.certain

    def _by_channels(self, log: TraceLog, removal: Removal) -> Deviation | None:
        """Return where shapes or channels are not those that are left."""
        copy = self.fresh()
        replay = Replay(log.operations, removal, ValuesRead(copy, self.computes))
        shrink(log, removal, copy)
        tracer = Tracer(ReplayLog(log, removal, replay), replay=replay)
        try:
            self.trace(tracer, copy)
        except DeviationError as error:
            return error.deviation
        except UnfollowedError:
            return Deviation(replay.step, "values may have led to other code", by_data=True)
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            return failed(error, replay, tracer)
        return None if replay.step == len(log.operations) else Deviation(replay.step, "the code ends early")


def failed(error: Exception, replay: Replay, watcher: Watcher) -> Deviation:
    """Return where a second run was when a model's code failed."""
    last = max(0, min(replay.step, len(replay.operations) - 1))
    why = f"the thinned model fails: {type(error).__name__}: {str(error)[:120]}"
    operation, module = replay.operations[last], watcher.frame.name
    inside = replay.inside or (isinstance(operation.func, type) and operation.module == module)
    return Deviation(last, why, None if inside else module, watcher.place)


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
    used = numbers.labels[torch.cat([*uses, torch.zeros(0).long()])].split([*map(len, uses), 0])[:-1]
    group = class_of_label(used, numbers.frozen)
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
    failed: dict[Hashable, Deviation] = {}
    for _ in range(MOST_REPAIRS):
        if not bool(removal.dead.any()):
            break
        # A change that leaves the channels as they were in another try (a split that follows the axis that it follows
        # anyway) fails as that did.
        change = _identity(log, numbers)
        if change not in failed:
            deviation = rehearsal.deviation(log, removal)
            if deviation is None or repairs.excuse(deviation):
                break
            failed[change] = deviation
        before = log
        failure = FailedRemoval(log, numbers, removal.dead, failed[change], rehearsal.names)
        log, repairs = repairs.repaired(failure)
        if not log.same_channels(before):
            numbers = numbering(log)
            removal = sampled(log, numbers)
    return log, numbers, repairs


def _identity(log: TraceLog, numbers: Numbering) -> Hashable:
    """Return what tells apart the removals that are tried: which channels go together or stay, and what counts them."""
    counts = [
        (count.module, count.name, count.index, hash(count.ids.numpy().tobytes())) for count in counting(log, numbers)
    ]
    kept = (numbers.labels, numbers.frozen >= 0, numbers.shared)
    return tuple(hash(tensor.numpy().tobytes()) for tensor in kept), tuple(counts)


def sampled(log: TraceLog, numbers: Numbering) -> Removal:
    """Return a removal of a few channels of every class."""
    return Removal(log.ids, numbers, sample(numbers, list(log.ids.values()), log.aligned))
