"""The equality check: does the thinned network compute the same function?"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .copying import shared_copy
from .inputs import run, tensors_of
from .precision import full_precision

HUGE, SAMPLE = 1e4, 1_000_000


def randomized(example_inputs: Any, seed: int = 0) -> Any:
    """Inputs of the same shapes and types: normal random numbers for floating-point tensors, others as they are."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator, device="cpu").to(tensor.device, tensor.dtype)

    return tree_map_only(Tensor, draw, example_inputs)


def outputs(model: nn.Module, batches: Sequence[Any], double: bool = False) -> list[list[Tensor]]:
    """What a model returns in eval mode for each of several inputs, by a copy that shares its parameters.

    The model itself does not run: what its code keeps (counters, states of a stream, buffers) stays as it is, and is
    the same at the next call. With `double` the copy and its inputs are in double precision.
    """
    copy, results = shared_copy(model).eval(), []
    if double:
        copy, batches = copy.double(), [_in_double(batch) for batch in batches]
    with torch.no_grad(), full_precision():
        for batch in batches:
            with fixed_chance():
                results.append([_dense(tensor.detach()) for tensor in tensors_of(run(copy, batch), numbers=True)])
    return results


def _dense(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.layout == torch.strided else tensor.to_dense()


@contextmanager
def fixed_chance() -> Iterator[None]:
    """The same random numbers each time, from torch, Python and numpy; afterwards all go on as before."""
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


def _in_double(example_inputs: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, example_inputs)


def relative_difference(before: Sequence[Sequence[Tensor]], after: Sequence[Sequence[Tensor]]) -> float:
    """The largest max |difference| / max |output| over all outputs; infinite where shapes or NaNs differ."""
    worst = 0.0
    for mine, other in zip(before, after, strict=True):
        if len(mine) != len(other):
            return float("inf")
        worst = max([worst, *(difference(a, b) for a, b in zip(mine, other, strict=True))])
    return worst


def difference(a: Tensor, b: Tensor) -> float:
    """The ratio max |a - b| / max |a| of two tensors.

    Elements of more than 10,000 times the median (a -1e9 that masks logits) are compared with their like alone: beside
    them all others would be nothing.
    """
    if a.shape != b.shape or a.numel() == 0:
        return 0.0 if a.shape == b.shape else float("inf")
    a, b = (t.to(torch.complex128) if t.is_complex() else t.double() for t in (a, b))
    same = (a == b) | (a.isnan() & b.isnan())
    gaps = torch.where(same, torch.zeros_like(a), a - b).abs().flatten()
    sizes = torch.where(a.isfinite(), a, torch.zeros_like(a)).abs().flatten()
    huge = sizes > HUGE * _median(sizes)
    parts = [(gaps[part], sizes[part]) for part in (huge, ~huge) if bool(part.any())]
    results = [float(gap.max() / size.max()) if float(size.max()) > 0 else float(gap.max()) for gap, size in parts]
    return float("inf") if any(map(math.isnan, results)) else max(results)


def _median(sizes: Tensor) -> float:
    """The median of those that are not 0, of a sample where they are many."""
    some = sizes[:: max(1, sizes.numel() // SAMPLE)]
    some = some[some > 0]
    return float(some.median()) if some.numel() else math.inf
