"""Rehearse a removal on a copy: find sizes that the model's own code has fixed, and what to do about each.

The copy from which channels were removed is traced again; where its run leaves the first one's track, one of three
things helps: an integer attribute of a module that counts those channels gets its new value, a split axis is followed
along another of its dimensions, or the channels are frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..label_sets import class_of_label, members
from ..module_sizes import fit_sizes, replace_data
from ..running.copies import named_tensors
from ..tracing.log import TraceLog
from ..tracing.numbering import Numbering, numbering
from ..tracing.replay import DeviationError, Replay, ReplayLog, UnfollowedError
from ..tracing.tracer import Tracer
from .repairs import Repairs
from .shapes_only import ShapeRun, takes_by_number

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
class Rehearsal:
    """What a rehearsal needs: `fresh` makes a copy of the model, `flow` runs a copy under a tracer."""

    fresh: Callable[[], nn.Module]
    flow: Flow
    run_shapes: Callable[[ShapeRun, nn.Module], None]
    repairs: Repairs

    def shapes_agree(self, log: TraceLog, numbers: Numbering, dead: Tensor) -> bool:
        """Whether shapes alone show that a removal works; False says nothing."""
        if takes_by_number(log):
            return False
        shapes, copy = ShapeRun(log.sequence, numbers.labels, dead), self.fresh()
        shrink(log, numbers, dead, copy)
        try:
            self.run_shapes(shapes, copy)
        except Exception:  # the full rehearsal finds out what it is
            return False
        return shapes.fits and shapes.step == len(log.sequence)

    def rehearse(self, log: TraceLog, numbers: Numbering, dead: Tensor) -> DeviationError | None:
        """Remove `dead` from a copy and run it again; the deviation from the first run, None if there is none."""
        replay = Replay(log.operations, numbers.labels, dead)
        copy = self.fresh()
        shrink(log, numbers, dead, copy)
        try:
            self.flow(Tracer(ReplayLog(log, numbers.labels, dead), replay=replay), copy)
        except DeviationError as deviation:
            return deviation
        except UnfollowedError:
            return None  # found out when channels that are zero go, which changes no values
        except Exception as error:  # whatever a model's code raises when sizes do not fit
            last = max(0, min(replay.step, len(log.operations) - 1))
            return DeviationError(last, f"the thinned model fails: {type(error).__name__}: {str(error)[:120]}")
        return None if replay.step == len(log.operations) else DeviationError(replay.step, "the code ends early")


def shrink(log: TraceLog, numbers: Numbering, dead: Tensor, copy: nn.Module) -> None:
    """Slice a copy's tensors and set its sizes."""
    stays = ~dead[numbers.labels]
    for name, tensor in named_tensors(copy).items():
        data = tensor.data
        for dim in range(tensor.ndim):
            ids = log.ids.get((name, dim))
            left = None if ids is None else stays[ids].nonzero().flatten()
            if left is not None and len(left) < data.shape[dim]:
                data = data.index_select(dim, left.to(data.device))
        if data is not tensor.data and data.shape != tensor.shape:
            replace_data(tensor, data)
    fit_sizes(copy)
    for entry in log.attributes:
        entry.set(copy.get_submodule(entry.module), int((~dead[numbers.labels[entry.ids]]).sum()))


def find_fixed_sizes(log: TraceLog, rehearsal: Rehearsal) -> Numbering:
    """Rehearse a removal from every class until the run keeps its track; returns the final numbering."""
    numbers = numbering(log)
    for _ in range(500):
        dead = sample(numbers, list(log.ids.values()))
        if not bool(dead.any()) or rehearsal.shapes_agree(log, numbers, dead):
            break
        deviation = rehearsal.rehearse(log, numbers, dead)
        if deviation is None:
            break
        rehearsal.repairs.repair(deviation, numbers, dead)
        numbers = numbering(log)
    return numbers
