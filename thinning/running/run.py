"""Run a model plainly: no fused kernels, full precision, random state as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .precision import full_precision


@contextmanager
def plain_run(model: nn.Module) -> Iterator[None]:
    """Run as the model does when it trains (with gradients enabled) or not, random state as before.

    Torch's fused kernels of transformer layers and of attention are off, so that their parts are seen.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.set_grad_enabled(model.training),
            torch.random.fork_rng(devices=[]),
            sdpa_kernel(SDPBackend.MATH),
            full_precision(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
