"""The end of a backward pass: when data parallel classes have written the averaged gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.autograd import Variable

AFTER_DATA_PARALLEL = 3
"""How deep callbacks nest: `DistributedDataParallel` ends in the first, with a static graph at first in the second."""


def after_backward_pass(act: Callable[[], None], after_readers: bool = False) -> None:
    """Call a function when the backward pass that runs now is over and its gradients are those of all ranks.

    `queue_callback` is private, but what torch's own data parallel classes end their backward passes with. Theirs write
    averaged gradients over what is in `.grad`; queued from within a callback, ours comes behind them.

    Args:
        act: what to do.
        after_readers: come after those who read the gradients of the loss itself, to change them.
    """
    _queue(act, AFTER_DATA_PARALLEL + after_readers)


def _queue(act: Callable[[], None], depth: int) -> None:
    Variable._execution_engine.queue_callback(act if depth == 1 else partial(_queue, act, depth - 1))
