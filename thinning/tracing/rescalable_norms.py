"""Norms by a mean of squares or of absolute values lose channels that are 0 exactly: fewer channels are made up for.

Of C channels C' are left, the others are 0: the mean is C/C' times what it was. With eps times C/C' so is their sum,
and with the weight times C/C' (of a root mean square: its root) the outputs are the same. Global response norm divides
by a mean of norms. Whether a module computes this, whatever its code, is found out by running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..changes import scaled
from ..module_sizes import new_size
from ..running.copies import copied
from .entries import MeanOver, Read, Rescale
from .log import TraceLog

AGREE = 1e-5
"""Modules may compute in single precision, whatever they are given."""


def settle_means(log: TraceLog, model: nn.Module) -> None:
    """Make means over channels in modules that can make up for fewer of them exact where channels are 0."""
    found: dict[tuple[str, int], Rescale | None] = {}
    for mean in log.means:
        key = mean.module, len(mean.ids)
        if key not in found:
            found[key] = _rescale(model, mean)
    first: dict[int, Rescale] = {}
    for key, rescale in found.items():
        if rescale is not None:
            weight = model.get_submodule(rescale.module).get_parameter(rescale.weight)
            other = first.setdefault(id(weight), rescale)
            if (other.offset, other.power) != (rescale.offset, rescale.power):  # one weight cannot make up for both
                found[key] = None
    for mean in log.means:
        rescale = found[mean.module, len(mean.ids)]
        if rescale is None:
            log.mark_inexact(mean.ids, mean.why)
        else:
            log.read(Read(mean.ids, mean.value))
    log.rescales += [rescale for rescale in found.values() if rescale is not None]


def settle_weight_norms(log: TraceLog) -> None:
    """Let weight norms lose inputs where g makes up for it: a g that serves two weights cannot for both."""
    uses: dict[str, set[tuple[str, int]]] = {}
    for norm in log.weight_norms:
        uses.setdefault(norm.magnitude, set()).add((norm.directions, norm.dim))
    log.reads += [Read(norm.ids, norm.value) for norm in log.weight_norms if len(uses[norm.magnitude]) > 1]
    log.weight_norms = [norm for norm in log.weight_norms if len(uses[norm.magnitude]) == 1]


def _rescale(model: nn.Module, mean: MeanOver) -> Rescale | None:
    """Return what makes up for fewer channels in a module; None if nothing is known to."""
    try:
        module = model.get_submodule(mean.module)
    except (AttributeError, RuntimeError):
        return None
    for name, attribute, offset, power in _candidates(module, len(mean.ids)):
        rescale = Rescale(mean.module, name, attribute, offset, power, mean.ids)
        try:
            if _holds(module, rescale, mean):
                return rescale
        except Exception:  # whatever a module's code says against such inputs: it is no such norm
            return None
    return None


def _candidates(module: nn.Module, size: int) -> Iterator[tuple[str, str, float, float]]:
    """Yield a weight, the attribute that is added to the mean, what is added to the weight (1 in some), the power."""
    weights = [name for name, weight in module.named_parameters() if tuple(weight.shape) == (size,)]
    small = [key for key, value in vars(module).items() if type(value) is float or (key == "eps" and value is None)]
    own = not any(part.numel() for child in module.children() for part in child.parameters())
    if own and size > 2:  # an activation inside is no matter
        yield from product(weights, small, (0.0, 1.0), (0.5, 1.0))


@torch.no_grad()
def _holds(module: nn.Module, rescale: Rescale, mean: MeanOver) -> bool:
    """Return whether a copy with channels less, rescaled, gives what the module gives for inputs that are 0 there."""
    draw, size, dim = torch.Generator().manual_seed(0), len(rescale.ids), mean.dim

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
    eps = added(getattr(whole, rescale.attribute), torch.float64)
    setattr(part, rescale.attribute, eps * size / len(kept))
    weight = part.get_parameter(rescale.weight)
    weight.data = scaled(weight.data, (size / len(kept)) ** rescale.power, rescale.offset)
    shape = [2, *[3] * (mean.ndim - 1)]
    for magnitude in (1.0, math.sqrt(eps), eps):  # with the latter two what is added counts, to squares or not
        shape[dim] = len(kept)
        few = torch.randn(shape, generator=draw, device="cpu", dtype=torch.float64) * magnitude
        shape[dim] = size
        x = torch.zeros(shape, dtype=torch.float64).index_copy(dim, kept, few)
        wanted, got = whole(x).index_select(dim, kept), part(few)
        if not float((wanted - got).abs().max()) <= AGREE * float(wanted.abs().max()):
            return False
    return True


def _resize(module: Any, old: int, new: int) -> None:
    """Set the module's own integers of a size, and those in tuples."""
    for key, value in list(vars(module).items()):
        if type(value) is int and value == old:
            setattr(module, key, new)
        elif isinstance(value, (tuple, list)) and old in value:
            setattr(module, key, new_size(value, [new if item == old else item for item in value]))


def added(eps: float | None, dtype: torch.dtype) -> float:
    """Return what a norm adds to the mean: None stands for the smallest step of the type."""
    return float(torch.finfo(dtype).eps if eps is None else eps)
