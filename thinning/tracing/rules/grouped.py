"""Matrix products of many matrices at once: experts of a mixture, distances between rows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Call
from ..entries import LayerCall, Read
from ..labels import Plane, numel
from ..registry import rule
from .layer import leaf_along, output_value

aten = torch.ops.aten
ALIGNED = 16
"""Bytes of which each row of a factor of a grouped product must be a multiple: torch refuses others."""


@rule(*([aten._grouped_mm] if hasattr(aten, "_grouped_mm") else []), "transformers::grouped_mm_fallback")
def grouped_product(call: Call) -> None:
    """Follow rows that are each multiplied by the matrix (inputs, outputs) of their expert."""
    x, weight = call.args[:2]
    if x.ndim != 2 or weight.ndim != 3:
        call.give_up("not a matrix for each group of rows")
        return
    call.freeze([p for p in call.planes(weight) if p.ids.shape[0] > 1], "experts are chosen by data")
    reads, makes = (call.info(weight).along(dim) for dim in (1, 2))
    inputs = next((plane for plane in call.planes(x) if plane.dims == (1,)), None)
    call.freeze([plane for plane in call.planes(x) if plane.dims != (1,)], "experts are chosen by data")
    if inputs is not None and reads is not None:
        call.unite(inputs.ids.reshape(-1), reads.ids.reshape(-1))
    else:
        call.freeze([plane for plane in (inputs, reads) if plane is not None], "reads an input of fixed size")
    if reads is not None and "_grouped_mm" in call.name:
        call.log.align(reads.ids, ALIGNED // x.element_size())
    entry = _log_experts(call, weight, inputs, makes)
    if inputs is not None:
        layer = None if entry is None else len(call.log.layers) - 1
        call.log.read(Read(inputs.ids.reshape(-1), _flat(inputs.value), layer))
    if makes is None:
        return
    real = call.weight(weight)
    rows = None if real is None else real.permute(2, 1, 0)
    value = output_value(call, rows, None if inputs is None else _zeros(inputs.value), 1, None, True)
    ids = makes.ids.reshape(1, -1)
    origin = None if entry is None else len(call.log.layers) - 1
    sources = frozenset[int]() if origin is None else frozenset({origin})
    call.emit([Plane(ids, None if value is None else value.reshape(ids.shape), None, origin, sources)])


def _log_experts(call: Call, weight: Tensor, inputs: Plane | None, makes: Plane | None) -> LayerCall | None:
    known = call.info(weight).weight
    if known is None:
        return None
    empty = torch.zeros(0, dtype=torch.int64)
    rows = call.shapes[0][0] / max(weight.shape[0], 1) / call.log.batch
    reads = empty if inputs is None else inputs.ids.reshape(-1)
    made = empty if makes is None else makes.ids.reshape(-1)
    entry = LayerCall(known[0], known[1][1], known[1][2], 1, rows, reads, made)
    call.log.role(leaf_along(call.info(weight), 2), "out")
    call.log.role(leaf_along(call.info(weight), 1), "in")
    call.log.layers.append(entry)
    return entry


def _flat(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.reshape(-1)


def _zeros(value: Tensor | None) -> Tensor | None:
    return None if value is None else torch.where(value.reshape(-1) == 0, 0.0, torch.nan)


@rule(aten._cdist_forward, aten._euclidean_dist, aten.cdist)
def distance(call: Call) -> None:
    """Follow distances between rows: channels that are 0 in both may go (the largest difference, too)."""
    planes = [call.planes(tensor) for tensor in call.args[:2]]
    last = [next((p for p in own if p.dims == (p.ids.ndim - 1,)), None) for own in planes]
    call.freeze([p for own in planes for p in own if p not in last], "rows are compared one by one")
    first, second = last
    if first is None or second is None:
        call.freeze([plane for plane in last if plane is not None], "compared with a tensor of fixed size")
        return
    call.unite(first.ids.reshape(-1), second.ids.reshape(-1))
    values = [call.value_of(plane) for plane in (first, second)]
    same = None
    if values[0] is not None and values[1] is not None:
        equal = values[0].reshape(-1) == values[1].reshape(-1)
        same = torch.where(equal, 0.0, torch.nan).double()
    call.log.read(Read(first.ids.reshape(-1), same))
    call.log.other_macs += numel(tuple(call.outputs()[0].shape)) * first.ids.numel() / call.log.batch


FOURIER = [getattr(aten, name) for name in ("_fft_r2c", "_fft_c2r", "_fft_c2c") if hasattr(aten, name)]


@rule(*FOURIER)
def fourier(call: Call) -> None:
    """Follow a Fourier transform: channels along other dimensions than its own stay what they are."""
    dims = {dim % len(call.shapes[0]) for dim in call.args[1]}
    kept = []
    for plane in call.planes(call.args[0]):
        if dims & set(plane.dims):
            call.freeze([plane], "a Fourier transform over the channels")
        else:
            zero = None if plane.value is None else torch.where(plane.value == 0, 0.0, torch.nan)
            kept.append(plane.but(value=zero, leaf=None, origin=None))
    call.emit(kept)
