"""A quick rehearsal that looks at shapes only: it finds out where most removals fail, and whether the others do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..running.fast_meta import execute
from ..tracing.call import tensors_given
from ..tracing.entries import numbers_in
from ..tracing.log import TraceLog
from ..tracing.replay import Replay
from ..tracing.values_read import READS
from ..tracing.watcher import Watcher, watched

aten = torch.ops.aten
NAMES = (
    "slice select split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind index index_select gather"
    " narrow constant_pad_nd as_strided roll flip repeat"
)
BY_NUMBER = {getattr(aten, name) for name in NAMES.split()}


class LostError(Exception):
    """Another operation comes than in the first run, maybe one that is not on channels: a full rehearsal can tell."""


def takes_by_number(log: TraceLog) -> bool:
    """Return whether an operation could take the wrong channels and still give the right shape."""
    if log.splits or log.counts:
        return True
    return any(getattr(operation.func, "overloadpacket", None) in (*BY_NUMBER, None) for operation in log.operations)


class ShapeRun(Watcher):
    """Carries a thinned copy's operations out: those of the first run, with the shapes that are left?

    `certain`: what is not compared has the same shape, too, and no channels lie along several dimensions, of which
    shapes do not tell along which they went.

    Raises:
        DeviationError, UnfollowedError: as a full rehearsal.
        LostError: the operations are others.
    """

    def __init__(self, log: TraceLog, replay: Replay) -> None:
        super().__init__()
        self.sequence = log.sequence
        self.replay = replay
        self.at = 0
        self.certain = True
        self._hooks = ExitStack()

    def __enter__(self) -> ShapeRun:
        """Begin."""
        self._hooks.enter_context(watched(self))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        self._hooks.close()

    def reads(self, *tensors: Tensor) -> None:
        """Note that the code reads numbers of tensors."""
        self.replay.values.read(*tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out and compare."""
        kwargs = kwargs or {}
        due = self.sequence[self.at] if self.at < len(self.sequence) else None
        if due is None or due.func is not func:
            raise LostError
        self.running = func
        if func in READS:
            self.reads(*tensors_given(args, kwargs))
        if due.operation is not None:
            self.replay.step = due.operation
            self.replay.begin(func, self.frame.name)
        out = execute(func, args, kwargs)
        tensors = [t for t in (out if isinstance(out, (list, tuple)) else (out,)) if isinstance(t, Tensor)]
        self.replay.values.follow(tensors_given(args, kwargs), tensors)
        made = tuple((tuple(tensor.shape), ()) for tensor in tensors)
        if due.operation is not None:
            self.replay.end(made, numbers_in(args, kwargs), labelled=False)
            planes = [plane for _, planes in due.made for plane in planes]
            self.certain = self.certain and all(len(plane.dims) == 1 for plane in planes)
        else:
            self.certain = self.certain and [shape for shape, _ in made] == [shape for shape, _ in due.made]
        self.at += 1
        self.running = None
        return out
