"""Arithmetic without shortcuts: what is compared to 1e-5 must not be computed with ten bits of mantissa."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Made = TypeVar("Made")

WIDER = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64}
WIDER |= {torch.complex32: torch.complex128, torch.complex64: torch.complex128}

_OPERATIONS = [("cudnn", "conv"), ("cudnn", "rnn"), ("cuda", "matmul")]
_OPERATIONS += [("mkldnn", name) for name in ("conv", "rnn", "matmul")]


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute single precision as such: no TF32 (cuDNN's default for convolutions), no bfloat16, no autocast.

    What the user has chosen is as before afterwards.
    """
    with ExitStack() as undo:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                undo.enter_context(torch.autocast(device, enabled=False))
        switches = [*_new_switches(), *_old_switches()]  # undone from the last on: the old ones write the new ones too
        for value, change, _ in switches:
            undo.callback(change, value)
        for _, change, exact in reversed(switches):
            change(exact)
        yield


def _new_switches() -> list[tuple[Any, Callable[[Any], None], Any]]:
    """Return the precision of each kind of operation, where torch has it: value, how to change it, exact value."""
    if not hasattr(torch.backends.cudnn, "conv"):
        return []
    found = [getattr(getattr(torch.backends, library), name) for library, name in _OPERATIONS]
    return [(holder.fp32_precision, partial(setattr, holder, "fp32_precision"), "ieee") for holder in found]


def _old_switches() -> list[tuple[Any, Callable[[Any], None], Any]]:
    """Return the same of the older switches, but those that torch will not read since the new ones are set."""
    cudnn = torch.backends.cudnn
    switches: list[tuple[Any, Callable[[Any], None], Any]] = []
    with suppress(RuntimeError):
        switches.append((cudnn.allow_tf32, partial(setattr, cudnn, "allow_tf32"), False))
    with suppress(RuntimeError):
        switches.append((torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision, "highest"))
    return switches


class DoubleThroughout(TorchDispatchMode):
    """Makes double precision of what the model's code asks for in less: norms and softmaxes of language models."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out."""
        options = dict(kwargs or {})
        options |= {"dtype": WIDER[options["dtype"]]} if options.get("dtype") in WIDER else {}
        return func(*args, **options)


def in_double_throughout(run: Callable[[], Made]) -> Made:
    """Return what a call returns in that mode; without it, where the code insists on its own precision."""
    with suppress(Exception), DoubleThroughout():
        return run()
    return run()
