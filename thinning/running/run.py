"""Run a model plainly: no fused kernels, full precision, random state as before."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .precision import full_precision


@contextmanager
def plain_run(model: nn.Module) -> Iterator[None]:
    """Run as the model does when it trains (with gradients enabled) or not, with the same random numbers each time.

    Torch's fused kernels of transformer layers and of attention are off, so that their parts are seen.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.set_grad_enabled(model.training),
            fixed_chance(),
            sdpa_kernel(SDPBackend.MATH),
            full_precision(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def fixed_chance() -> Iterator[None]:
    """Yield the same random numbers each time, from torch, Python and numpy; afterwards all go on as before."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy is not None else None
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            random.seed(0)
            if numpy is not None:
                numpy.random.seed(0)
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(state)
