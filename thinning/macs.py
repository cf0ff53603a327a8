"""Multiply-adds of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from .errors import ThinningError
from .names import unwrapped
from .running.copies import meta_copy, shared_copy
from .running.fast_meta import execute
from .running.inputs import batch_of, run, to
from .running.run import plain_run
from .tracing.labels import numel

aten = torch.ops.aten


class _Counter(TorchDispatchMode):
    """Adds up the multiply-adds of every convolution and matrix product that is carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = execute(func, args, kwargs or {})
        self.total += macs_of(func, args, out)
        return out


def macs_of(func: Any, args: Any, out: Any) -> int:
    """Return the multiply-adds of an operation that was carried out."""
    operation = getattr(func, "overloadpacket", None)
    if operation is aten.convolution:
        x, weight, transposed = args[0], args[1], args[6]
        # Every element of the weight acts once at each place: of the output, or of the input where the convolution is
        # transposed.
        image, channels = (x, weight.shape[0]) if transposed else (out, weight.shape[0])
        return numel(image.shape) // channels * numel(weight.shape)
    if operation in (aten.mm, aten.bmm, aten.mv):
        return numel(out.shape) * args[0].shape[-1]
    if operation in (aten.addmm, aten.baddbmm, aten.addmv):
        return numel(out.shape) * args[1].shape[-1]
    # Linear layers arrive whole, or as the products that torch makes of them, by version and device.
    if operation is aten.linear or (operation is getattr(aten, "_grouped_mm", None) and args[0].ndim == 2):
        return numel(out.shape) * args[0].shape[-1]
    if operation is aten._trilinear:
        return args[0].shape[0] * numel(args[1].shape)
    return 0


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """Return the multiply-adds of convolutions, linear layers and matrix products for one sample of the example inputs.

    Half of what `torch.utils.flop_counter` counts, attention included. On the meta device where the model allows.
    """
    model = unwrapped(model)
    try:
        total = _total(meta_copy(model), to(example_inputs, "meta"))
    except Exception:  # whatever a model's code raises without numbers
        try:
            total = _total(shared_copy(model), example_inputs)
        except Exception as error:
            raise ThinningError(
                f"a copy of the model does not run (a hook of the original?): {type(error).__name__}: {error}"
            ) from error
    return round(total / batch_of(example_inputs))


def _total(copy: nn.Module, example_inputs: Any) -> int:
    counter = _Counter()
    with plain_run(copy.eval()), counter:
        run(copy, example_inputs)
    return counter.total
