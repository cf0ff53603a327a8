"""Matrix products: linear layers, and products of two activations (attention)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..call import Call
from ..entries import LayerCall, Read
from ..labels import SINGLE, Plane, TensorInfo, numel
from ..registry import rule
from .elementwise import combine, merge
from .layer import leaf_along, output_value

aten = torch.ops.aten


@rule(aten.mm, aten.bmm, aten.matmul, aten.mv, aten.dot, aten.vdot)
def product(call: Call) -> None:
    """Follow a product without bias."""
    _product(call, call.args[0], call.args[1], None)


@rule(aten.addmm, aten.baddbmm, aten.addmv, aten.addbmm)
def product_and_bias(call: Call) -> None:
    """Follow a product to which something is added."""
    _product(call, call.args[1], call.args[2], call.args[0])


@rule(aten.linear)
def linear(call: Call) -> None:
    """Follow a linear layer that arrives whole: transpose the weight here."""
    weight = call.args[1]
    turned = weight.t()
    known = call.info(weight)
    planes = tuple(plane.map(lambda t: t.t()) for plane in known.planes)
    turned_info = TensorInfo(
        planes, known.storage, known.version, known.weight and (known.weight[0], known.weight[1][::-1])
    )
    call.set_info(turned, turned_info)
    _product(call, call.args[0], turned, call.arg(2, "bias"))


def _product(call: Call, a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    out = call.outputs()[0]
    # A linear layer on a batch arrives as a batch of products with its weight repeated: the weight itself is meant.
    a, b = (_matrix(call, tensor) for tensor in (a, b))
    k = a.shape[-1]
    left, right = _split(call, a, -1), _split(call, b, -2 if b.ndim > 1 else -1)
    inner_a, inner_b = left[0], right[0]
    outer_a, outer_b = left[1], right[1]
    # Summed over an axis that carries two kinds of channels: neither side may shrink by itself then.
    collapsed = bool(left[2] or right[2])
    entry = _log_layer(call, a, b, out)
    _contract(call, (inner_a, inner_b), a, b, collapsed, entry)
    if entry is None:
        # Products of activations (attention) do not shrink with any one weight; they are counted as they are.
        call.log.other_macs += numel(tuple(out.shape)) * k / call.log.batch
        _say_roles(call, a, b)
    shapes: list[Sequence[int]] = [(*a.shape[:-1], 1), (*b.shape[:-2], 1, b.shape[-1]) if b.ndim > 1 else (1,)]
    ndim = out.ndim if b.ndim > 1 else out.ndim + 1
    infos = [TensorInfo(tuple(outer_a), call.info(a).storage), TensorInfo(tuple(outer_b), call.info(b).storage)]
    full = [*out.shape] if b.ndim > 1 else [*out.shape, 1]
    planes = []
    for group in combine(call, [_fresh(n) for n in infos], shapes, full):
        # 0 times anything is 0; of other constants the sum depends on the other factor.
        # Of a layer's own weight that is found out below, without reading all of it.
        values = [p.value if entry is not None and _is_of(p, entry) else call.value_of(p) for p in group]
        zero = [value for value in values if value is not None]
        plane = merge(group, torch.where((zero[0] == 0).expand(group[0].ids.shape), 0.0, torch.nan) if zero else None)
        planes.append(_labelled(call, plane, entry, a, b, (inner_a, inner_b), bias))
    if b.ndim == 1:
        planes = [plane.map(lambda t: t.squeeze(-1)) for plane in planes if plane.ids.ndim == ndim]
    call.emit(planes if bias is None else _add(call, planes, bias, entry))


def _matrix(call: Call, tensor: Tensor) -> Tensor:
    """Return the matrix that each of a batch of matrices is, or the only one of a batch that is a parameter."""
    info = call.info(tensor)
    if info.repeated is not None:
        return info.repeated
    if info.weight is None or tensor.ndim != 3 or info.weight[1][0] != SINGLE:
        return tensor
    matrix = tensor[0]
    planes = tuple(plane.map(lambda t: t[0]) for plane in info.planes)
    call.set_info(matrix, TensorInfo(planes, info.storage, info.version, (info.weight[0], info.weight[1][1:])))
    return matrix


def _fresh(info: TensorInfo) -> TensorInfo:
    return TensorInfo(info.planes, info.storage, info.storage.version)


def _split(call: Call, tensor: Tensor, dim: int) -> tuple[Plane | None, list[Plane], bool]:
    """Return the plane along the summed dimension and the others; what varies elsewhere too goes together along it."""
    inner: Plane | None = None
    outer: list[Plane] = []
    collapsed = False
    for plane in call.planes(tensor):
        if plane.ids.shape[dim] == 1:
            outer.append(plane)
        elif len(plane.dims) == 1:
            inner = plane
        else:
            left = call.collapse(plane, plane.ids.ndim + dim, "")
            outer += [left] if left is not None else []
            collapsed = True
    return inner, outer, collapsed


def _contract(
    call: Call,
    inner: tuple[Plane | None, Plane | None],
    a: Tensor,
    b: Tensor,
    collapsed: bool,
    entry: LayerCall | None,
) -> None:
    """Unite the summed channels of both factors."""
    x, w = inner
    if x is not None and w is not None:
        call.unite(x.ids.reshape(-1), w.ids.reshape(-1))
    elif x is not None and (collapsed or not call.info(b).uniform):
        call.freeze([x], "summed with a tensor of fixed size")
    elif w is not None and (collapsed or not call.info(a).uniform):
        call.freeze([w], "reads an input of fixed size")
    if x is None or w is None:
        return
    if entry is not None:
        inputs = x if _on_right(call, b, entry) else w
        value = inputs.value if inputs.leaf is None else _hidden(call.value_of(inputs))
    else:  # two activations, or parts of weights: 0 in one of them is enough
        inputs, value = x, _either_zero(call.value_of(x), call.value_of(w))
    layer = None if entry is None else len(call.log.layers) - 1
    call.log.read(Read(inputs.ids.reshape(-1), None if value is None else value.reshape(-1), layer, True))


def _hidden(value: Tensor | None) -> Tensor | None:
    """Return which channels of a parameter that is read as an input (a learned query) are zero, where not all are.

    It may start as zeros or ones, which training changes.
    """
    zero = None if value is None else value == 0
    return None if zero is None or bool(zero.all()) else torch.where(zero, 0.0, torch.nan).double()


def _either_zero(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    zeros = [value.reshape(-1) == 0 for value in (a, b) if value is not None]
    return None if not zeros else torch.where(torch.stack(zeros).any(0), 0.0, torch.nan).double()


def _log_layer(call: Call, a: Tensor, b: Tensor, out: Tensor) -> LayerCall | None:
    """Return the layer, if one factor is a parameter (the right one if both are)."""
    # x @ W.t() is how linear layers arrive; W @ x is written by hand now and then.
    on_right = call.info(b).weight is not None and b.ndim == 2
    on_left = not on_right and call.info(a).weight is not None and a.ndim == 2
    if not on_right and not on_left:
        return None
    tensor, k_dim, n_dim = (b, 0, 1) if on_right else (a, 1, 0)
    known = call.info(tensor).weight
    if known is None:
        return None
    reads, makes = call.info(tensor).along(k_dim), call.info(tensor).along(n_dim)
    empty = torch.zeros(0, dtype=torch.int64)
    entry = LayerCall(
        known[0],
        known[1][k_dim],
        known[1][n_dim],
        1,
        numel(tuple(out.shape)) / max(tensor.shape[n_dim], 1) / call.log.batch,
        empty if reads is None else reads.ids.reshape(-1),
        empty if makes is None else makes.ids.reshape(-1),
    )
    call.log.role(leaf_along(call.info(tensor), n_dim), "out")
    call.log.role(leaf_along(call.info(tensor), k_dim), "in")
    call.log.layers.append(entry)
    return entry


def _on_right(call: Call, b: Tensor, entry: LayerCall) -> bool:
    """Return whether the right factor is the layer's weight, not the left one."""
    known = call.info(b).weight
    return b.ndim == 2 and known is not None and known[0] == entry.weight


def _is_of(plane: Plane, entry: LayerCall) -> bool:
    return plane.leaf is not None and plane.leaf[0] == entry.weight


def _say_roles(call: Call, a: Tensor, b: Tensor) -> None:
    """Say what a matrix that is a part of a parameter (an expert of several) reads and makes."""
    for tensor, k_dim, n_dim in ((a, -1, -2), (b, -2, -1)):
        if tensor.ndim < 2:
            continue
        makes, reads = (leaf_along(call.info(tensor), dim) for dim in (n_dim, k_dim))
        if makes is not None and reads is not None and makes[0] == reads[0]:
            call.log.role(makes, "out")
            call.log.role(reads, "in")


def _labelled(
    call: Call,
    plane: Plane,
    entry: LayerCall | None,
    a: Tensor,
    b: Tensor,
    inner: tuple[Plane | None, Plane | None],
    bias: Tensor | None,
) -> Plane:
    """Give the layer's own output channels their origin and value."""
    if entry is None or plane.leaf is None or plane.leaf != (entry.weight, entry.out_dim):
        return plane.but(leaf=None, value=None if bias is not None and entry is not None else plane.value)
    index = len(call.log.layers) - 1
    right = _on_right(call, b, entry)
    weight = call.weight(b if right else a)
    x = inner[0] if right else inner[1]
    value = None
    if weight is not None:
        rows = weight.t() if right else weight
        value = output_value(call, rows, None if x is None or x.value is None else x.value.reshape(-1), 1, None, False)
    shaped = None if value is None else value.reshape(plane.ids.shape)
    return plane.but(leaf=None, origin=index, sources=frozenset({index}), value=shaped)


def _add(call: Call, planes: list[Plane], bias: Tensor, entry: LayerCall | None) -> list[Plane]:
    """Unite with what is added; a layer's bias is noted."""
    out = call.outputs()[0]
    result = []
    for group in combine(call, [TensorInfo(tuple(planes)), call.info(bias)], [out.shape, bias.shape], out.shape):
        made = group[0]
        leaf = group[-1].leaf if len(group) > 1 else None
        if leaf is not None:
            call.log.role(leaf, "out" if entry is not None else "shift")
            if entry is not None and made.origin is not None:
                entry.bias = leaf[0]
        value = None
        if made.value is not None and len(group) > 1:
            added = call.value_of(group[-1])
            value = None if added is None else made.value + added
        result.append(made.but(value=value))
    return result
