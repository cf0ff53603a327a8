"""Change a trace log after a removal that failed: count by an attribute, follow another axis of a split, freeze.

Each failed removal is answered with one change, the most wanted first, and tried again. A change that does not carry
the next removal further than this one is taken back; one that did, and whose channels fail later on, is taken back
before anything is frozen. The last resort, freezing, always carries it further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from torch import nn

from ..tracing.deviation import Deviation
from ..tracing.log import TraceLog
from .failed_removal import FailedRemoval, Names
from .guesses import Guesses

MOST_OPTIONS = 24
"""Tries for one operation: each costs a run of a copy, and the likely ones come first."""
MOST_SPOILT = 2
"""So often a change of the same attributes of a module may make operations fail that nothing is removed from."""
SINGLE_FREEZES = 3
"""So often an operation of a class of modules is frozen in the module that failed alone; then in all of that class."""


@dataclass(frozen=True)
class Repairs:
    """What was tried so far: `pending` is the last try, `kept` are those that helped, the latest last.

    `spoilt`: how often a change of these attributes made an operation fail that went well before.
    """

    model: nn.Module
    tried: frozenset[Any] = frozenset()
    pending: FailedRemoval | None = None
    kept: tuple[FailedRemoval, ...] = ()
    blamed: Mapping[int, Deviation] = field(default_factory=dict)
    freezes: Mapping[Any, int] = field(default_factory=dict)
    spoilt: Mapping[Names, int] = field(default_factory=dict)

    def repaired(self, failed: FailedRemoval) -> tuple[TraceLog, Repairs]:
        """Return a log with which the next removal gets further, and the repairs with this one remembered."""
        # Further means a later operation: two changes cannot be told apart by anything else before the run gets
        # through.
        if self.pending is not None and failed.deviation.reached <= self.pending.deviation.reached:
            return self._with_spoilt(failed)._next(self.pending)  # the last change did not help: without it again
        kept = self.kept if self.pending is None else (*self.kept, replace(self.pending, after=failed.log))
        return replace(self, kept=kept)._next(failed)

    def excuse(self, deviation: Deviation) -> bool:
        """Return whether no size need be wrong where a removal failed, but values that it changed.

        Which is found out when channels that are zero go. Not where the run came further before the last change.
        """
        return deviation.by_data and (self.pending is None or deviation.step >= self.pending.deviation.step)

    def _with_spoilt(self, failed: FailedRemoval) -> Repairs:
        """Return the repairs with the last change noted where it made an earlier operation fail.

        Where nothing is removed from that, its attributes keep their values. As more than one number may be wrong
        (`a // b` is right if both change), only after some tries.
        """
        pending = self.pending
        earlier = pending is not None and failed.deviation.reached < pending.deviation.reached
        if pending is None or not earlier or not pending.log.same_channels(failed.log) or failed.touched:
            return self
        names = failed.names_around(replace(pending, after=failed.log).counts())
        return replace(self, spoilt={**self.spoilt, names: self.spoilt.get(names, 0) + 1}) if names[1] else self

    def _untried(self, failed: FailedRemoval) -> Iterator[tuple[Any, Callable[[], TraceLog]]]:
        for key, names, change in islice(Guesses(failed, self.model), MOST_OPTIONS):
            if key not in self.tried and self.spoilt.get(names, 0) < MOST_SPOILT:
                yield key, change

    def _next(self, failed: FailedRemoval) -> tuple[TraceLog, Repairs]:
        for key, change in self._untried(failed):
            return change(), replace(self, tried=self.tried | {key}, pending=failed)
        # A wrong guess may carry the run further (an attribute of equal value that counts something else) and fail
        # later, so the guesses are doubted, the last first, before channels are given up.
        # Not twice: what fails since the guess made for it was given up needs no other guess given up as well.
        doubted = failed.deviation.step in self.blamed
        for earlier in reversed(self.kept) if not doubted else ():
            if failed.concerns(earlier):
                blamed = {**self.blamed, earlier.deviation.step: failed.deviation}
                rest = tuple(other for other in self.kept if other is not earlier)
                undone, doubting = earlier.undone(failed.log), replace(self, pending=None, kept=rest, blamed=blamed)
                # Without other changes since, it is known how that fails.
                return doubting._next(earlier) if undone.same(earlier.log) else (undone, doubting)
        reason = self.blamed.get(failed.deviation.step, failed.deviation).at_a_cut(failed.cuts)
        count = self.freezes.get(failed.kind, 0) + 1
        log = failed.frozen(reason, everywhere=count > SINGLE_FREEZES)
        return log, replace(self, pending=None, freezes={**self.freezes, failed.kind: count})
