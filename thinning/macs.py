"""Multiply-adds of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .copying import meta_copy, shared_copy
from .inputs import batch_of, run, to
from .trace import plain_attention


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """The multiply-adds of convolutions, linear layers and matrix products for one sample of the example inputs.

    Counted by torch's flop counter, which counts two operations for each; on the meta device where the model allows.
    """
    try:
        flops = _flops(meta_copy(model), to(example_inputs, "meta"))
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        flops = _flops(shared_copy(model), example_inputs)
    return round(flops / 2 / batch_of(example_inputs))


def _flops(copy: nn.Module, example_inputs: Any) -> int:
    counter = FlopCounterMode(display=False)
    attention = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with plain_attention(), attention, torch.no_grad(), torch.random.fork_rng(), counter:
        run(copy.eval(), example_inputs)
    return counter.get_total_flops()
