"""Root mean square norms lose channels that are 0 exactly: a mean over fewer channels is made up for.

Of C channels C' are left, the others are 0: the mean of the squares is C/C' times what it was. With eps times C/C' the
root is sqrt(C/C') times what it was, and with the weight times sqrt(C/C') the outputs are the same. Whether a module
computes this, whatever its code, is found out by running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..changes import scaled
from ..running.copies import copied
from .log import Read, Rescale, TraceLog

AGREE = 1e-5
"""Modules may compute in single precision, whatever they are given."""


def settle_means(log: TraceLog, model: nn.Module) -> None:
    """Make means over channels in modules that can make up for fewer of them exact where channels are 0."""
    found: dict[tuple[str, int], Rescale | None] = {}
    for mean in log.means:
        key = mean.module, len(mean.ids)
        if key not in found:
            found[key] = _rescale(model, mean.module, mean.ids)
        rescale = found[key]
        if rescale is None:
            log.mark_inexact(mean.ids, mean.why)
        else:
            log.read(Read(mean.ids, mean.value))
    log.rescales += [rescale for rescale in found.values() if rescale is not None]


def _rescale(model: nn.Module, path: str, ids: Tensor) -> Rescale | None:
    """Return what makes up for fewer channels in a module; None if nothing is known to."""
    try:
        module = model.get_submodule(path)
    except (AttributeError, RuntimeError):
        return None
    for name, attribute, offset in _candidates(module, len(ids)):
        try:
            if _holds(module, len(ids), name, attribute, offset):
                return Rescale(path, name, attribute, offset, ids)
        except Exception:  # whatever a module's code says against such inputs: it is no such norm
            return None
    return None


def _candidates(module: nn.Module, size: int) -> Iterator[tuple[str, str, float]]:
    """Yield a weight, the attribute that is added to the mean, and what is added to the weight (1 in some)."""
    weights = [name for name, weight in module.named_parameters() if tuple(weight.shape) == (size,)]
    small = [key for key, value in vars(module).items() if type(value) is float or (key == "eps" and value is None)]
    if len(list(module.children())) == 0 and size > 2:
        yield from ((name, key, offset) for name in weights for key in small for offset in (0.0, 1.0))


@torch.no_grad()
def _holds(module: nn.Module, size: int, name: str, attribute: str, offset: float) -> bool:
    """Return whether a copy with channels less, rescaled, gives what the module gives for inputs that are 0 there."""
    draw = torch.Generator().manual_seed(0)

    def some(tensor: Tensor) -> Tensor:
        # Near 1 and nowhere 0: a weight of zeros, as some networks begin with, would agree with any scale.
        return torch.rand(tensor.shape, generator=draw, device="cpu", dtype=torch.float64) + 0.5

    whole = copied(module, some).eval()
    part = copied(whole, torch.clone).eval()
    kept = torch.randperm(size, generator=draw, device="cpu")[: max(1, 2 * size // 3)].sort().values
    for parameter in part.parameters():
        if tuple(parameter.shape) == (size,):
            parameter.data = parameter.data[kept]
    _resize(part, size, len(kept))
    eps = added(getattr(whole, attribute), torch.float64)
    setattr(part, attribute, eps * size / len(kept))
    weight = part.get_parameter(name)
    weight.data = scaled(weight.data, math.sqrt(size / len(kept)), offset)
    for magnitude in (1.0, math.sqrt(eps)):  # the latter is where what is added counts
        x = torch.zeros(2, 3, size, dtype=torch.float64)
        x[..., kept] = torch.randn(2, 3, len(kept), generator=draw, device="cpu", dtype=torch.float64) * magnitude
        wanted, got = whole(x)[..., kept], part(x[..., kept])
        if not float((wanted - got).abs().max()) <= AGREE * float(wanted.abs().max()):
            return False
    return True


def _resize(module: Any, old: int, new: int) -> None:
    """Set the module's own integers of a size, and those in tuples."""
    for key, value in list(vars(module).items()):
        if type(value) is int and value == old:
            setattr(module, key, new)
        elif isinstance(value, (tuple, list)) and old in value:
            setattr(module, key, type(value)(new if item == old else item for item in value))


def added(eps: float | None, dtype: torch.dtype) -> float:
    """Return what a norm adds to the mean: None stands for the smallest step of the type."""
    return float(torch.finfo(dtype).eps if eps is None else eps)
