"""Reductions, softmax and whatever else looks along whole dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Call
from ..entries import MeanOver, Read
from ..labels import Plane, take_first
from ..registry import operations, rule
from .elementwise import elementwise

aten = torch.ops.aten


def _dims(call: Call) -> list[int]:
    ndim = len(call.shapes[0])
    dims = call.named("dim")
    if dims is None or dims == []:
        return list(range(ndim))
    return [dim % ndim for dim in ([dims] if isinstance(dims, int) else dims)]


def _reduce(call: Call, kind: str, keeps: str) -> None:
    dims = _dims(call)
    out = call.outputs()[0]
    planes = []
    for plane in map(call.known, call.planes(call.args[0])):  # of a parameter too, such as a weight's own norm
        left: Plane | None = plane
        # All axes along which the channel varies are summed: the channels end here.
        if set(plane.dims) <= set(dims):
            _gone(call, plane, kind)
            continue
        for dim in dims:
            if kind == "sum" and left is not None and left.ids.shape[dim] > 1 and len(left.dims) > 1:
                left = _summed(call, left, dim)
            elif left is not None:
                left = call.collapse(left, dim, "")
        if left is None:
            continue
        left = left.but(value=_kept(left.value, keeps), origin=None, leaf=None)
        planes.append(left if out.ndim == len(call.shapes[0]) else left.map(lambda t: t.squeeze(dims)))
    for tensor in call.outputs():
        call.emit(planes, tensor)


def _summed(call: Call, plane: Plane, dim: int) -> Plane:
    """Return the channels of a sum along one axis of several: whole rows that are 0 may go, the sum stays."""
    sums = take_first(plane, dim)
    shared = call.log.fresh(sums.ids.numel()).reshape(sums.ids.shape)
    call.log.link(plane.ids, shared, f"{call.place}: a sum over rows, of which it has one place each")
    value = None if plane.value is None else plane.value.reshape(-1)
    call.log.read(Read(plane.ids.reshape(-1), value, sums=shared.reshape(-1)))
    return sums.but(ids=shared, leaf=None, origin=None)


def _gone(call: Call, plane: Plane, kind: str) -> None:
    if kind == "sum":
        call.read(plane)
    elif kind == "mean":
        value = None if plane.value is None else plane.value.reshape(-1)
        why, ndim, dim = f"{call.place}: a mean over the channels", plane.ids.ndim, plane.dims[-1]
        call.log.mean(MeanOver(plane.ids.reshape(-1), value, call.tracer.frame.name, why, ndim, dim))
    else:
        call.freeze([plane], "over the channels")


def _kept(value: Tensor | None, keeps: str) -> Tensor | None:
    if value is None or keeps == "none":
        return None
    return value if keeps == "constants" else torch.where(value == 0, 0.0, torch.nan)


@rule(*operations("sum nansum"))
@rule(*operations("linalg_vector_norm norm"))
def total(call: Call) -> None:
    """Read the summed channels: those that are 0 may go (the same for a norm)."""
    order = call.arg(1, "ord", 2) if call.func.overloadpacket is not aten.sum else 2
    # |x| to the 0th power counts, to infinity is a maximum: elements that are 0 change them.
    positive = not isinstance(order, (int, float)) or 0 < order < float("inf")
    _reduce(call, "sum" if positive else "fixed", "zeros")


@rule(*operations("mean var std var_mean std_mean"))
def mean(call: Call) -> None:
    """Mark channels inexact whose mean changes with their number."""
    _reduce(call, "mean", "constants" if call.func.overloadpacket is aten.mean else "none")


@rule(*operations("amax amin max min median mode"))
def extreme(call: Call) -> None:
    """Follow the largest or smallest."""
    if len(call.tensors) > 1:
        elementwise(call)
    else:
        _reduce(call, "fixed", "constants")


@rule(*operations("prod all any argmax argmin logsumexp kthvalue aminmax count_nonzero"))
def other(call: Call) -> None:
    """Follow any other reduction."""
    _reduce(call, "fixed", "none")


@rule(*operations("mse_loss smooth_l1_loss huber_loss"))
def loss(call: Call) -> None:
    """Follow the loss of each element; a mean or sum of all changes with each of them."""
    if call.named("reduction", 1) == 0:
        elementwise(call)
    else:
        call.give_up("over the channels")


@rule(*operations("_softmax softmax _log_softmax log_softmax _safe_softmax masked_softmax _softmax_backward_data"))
@rule(*operations("logcumsumexp argsort"))
def along(call: Call) -> None:
    """Freeze channels along the dimension of which each element of the result depends on all."""
    planes = _without(call, [call.named("dim", -1)], "over the channels")
    for out in call.outputs():
        call.emit([plane.but(value=None, origin=None, leaf=None) for plane in planes], out)


@rule(*operations("cumsum cumsum_ cumprod cumprod_"))
def running(call: Call) -> None:
    """Follow sums and products up to each element: those of zeros are zeros."""
    planes = _without(call, [call.named("dim", -1)], "over the channels")
    call.emit(plane.but(value=_kept(call.value_of(plane), "zeros"), origin=None, leaf=None) for plane in planes)


@rule(*operations("cummax cummin sort topk"))
def ordered(call: Call) -> None:
    """Follow values that change their places only: constants stay the same."""
    planes = _without(call, [call.named("dim", -1)], "over the channels")
    for number, out in enumerate(call.outputs()):  # values, and where they were
        values = [None if number else call.value_of(plane) for plane in planes]
        call.emit([plane.but(value=v, origin=None, leaf=None) for plane, v in zip(planes, values, strict=True)], out)


@rule(*operations("tril tril_ triu triu_"))
def triangle(call: Call) -> None:
    """Freeze channels along the two dimensions whose indices say what becomes 0."""
    planes = _without(call, [-2, -1], "the position decides")
    call.emit(plane.but(value=_kept(call.value_of(plane), "zeros"), origin=None, leaf=None) for plane in planes)


def _without(call: Call, dims: list[int], why: str) -> list[Plane]:
    """Return the planes of the operand that vary along other dimensions, the others frozen."""
    planes = list(call.planes(call.args[0]))
    for dim in dims:
        left = [call.collapse(plane, dim % len(call.shapes[0]), why) for plane in planes]
        planes = [plane for plane in left if plane is not None]
    return planes
