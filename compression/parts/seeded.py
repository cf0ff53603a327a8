"""Randomness that is a function of names and time, so that a resumed run draws what an uninterrupted one would."""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor

from ..processes.shards import part, span

STRETCH = 1 << 20


def generator(*parts: object) -> torch.Generator:
    """Return a generator on the CPU, seeded by the parts' texts: seed, owner, parameter, epoch, minibatch."""
    digest = sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def rand_here(weight: Tensor, source: torch.Generator) -> Tensor:
    """Return the numbers that `torch.rand` draws for a sharded weight, those of the part that is here.

    All are drawn, a stretch at a time, and none but these are kept: the same as in one process.
    """
    start, size = span(weight)
    found = torch.empty(part(weight).shape, device="cpu")
    rows = weight.shape[0]
    inner = weight.numel() // max(rows, 1)
    step = max(1, STRETCH // max(inner, 1))
    for first in range(0, rows, step):
        drawn = torch.rand((min(step, rows - first), *weight.shape[1:]), generator=source, device="cpu")
        for dim in range(1, weight.dim()):
            drawn = drawn.narrow(dim, start[dim], size[dim])
        low, high = max(first, start[0]), min(first + step, rows, start[0] + size[0])
        if low < high:
            found[low - start[0] : high - start[0]] = drawn[low - first : high - first]
    return found.to(part(weight).device)
