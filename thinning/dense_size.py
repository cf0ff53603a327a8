"""How large a dense network may be that a file of a thinned one asks for: known before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .running.copies import named_tensors

FREE = 2**30
"""Bytes that a dense network may take in any case: 268 million parameters."""
TIMES = 64
"""How many times larger than the file it may be beyond that: thinning that leaves less than a 64th of so large a
network would be news."""
SMALL = 2**16
"""Elements up to which tensors are made as they are: some networks compute their widths with tensors."""
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


def dense_problem(build: Callable[[], nn.Module], held: int) -> str:
    """Return why the network that `build` makes is too large for a file with so many bytes of weights, or nothing.

    One that cannot be built without its memory is not bounded.
    """
    try:
        with torch.random.fork_rng(devices=[]), _WithoutMemory():
            size = sum(tensor.numel() * tensor.element_size() for tensor in named_tensors(build()).values())
    except Exception:  # its own code, of a plugin: building it in earnest says what is wrong
        return ""
    if size <= max(FREE, TIMES * held):
        return ""
    return f"the dense network would take {size:,} bytes, and the file explains no such size: it holds {held:,}"


class _WithoutMemory(TorchFunctionMode):
    """Makes large tensors on the `meta` device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in FACTORIES:
            found = function(*args, **{**kwargs, "device": "meta"})
            return found if found.numel() > SMALL else function(*args, **kwargs)
        return function(*args, **kwargs)
