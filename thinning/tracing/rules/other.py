"""Embedding, bilinear layers, gated linear units, comparisons as a whole."""

from __future__ import annotations

import torch

from ..call import Call
from ..entries import Read, WeightNorm
from ..labels import Plane
from ..registry import rule
from .elementwise import combine, merge
from .layer import leaf_along

aten = torch.ops.aten


@rule(aten.embedding, aten.embedding_bag, aten._embedding_bag, aten._embedding_bag_forward_only)
def embedding(call: Call) -> None:
    """Keep the rows, which data chooses; the features are channels."""
    weight = call.args[0]
    rows = call.info(weight).along(0)
    # Words that are never drawn cannot be known from a model: the vocabulary stays.
    if rows is not None:
        call.freeze([rows], "rows are chosen by an index")
    ndim = call.outputs()[0].ndim
    planes = []
    for plane in call.planes(weight):
        if plane.ids.shape[0] == 1:
            call.log.role(leaf_along(call.info(weight), 1), "out")
            value = call.value_of(plane)
            if value is not None and call.func.overloadpacket is not aten.embedding:
                value = torch.where(value == 0, value, torch.nan)  # a sum of several, or of none
            made = plane.but(value=value, leaf=None).map(lambda t: t.reshape(-1))
            planes.append(made.map(lambda t: t.reshape((1,) * (ndim - 1) + (-1,))))
    call.emit(planes)


@rule(aten._trilinear)
def bilinear(call: Call) -> None:
    """`nn.Bilinear`: out[b, o] = sum over i, j of x[b, i] W[o, i, j] y[b, j]."""
    first, weight, second = call.args[:3]
    _bilinear_input(call, first, weight, 1)
    _bilinear_input(call, second, weight, 2)
    made = call.info(weight).along(0)
    if made is not None:
        call.log.role(made.leaf, "out")
        call.emit([Plane(made.ids.reshape(1, -1))])


def _bilinear_input(call: Call, x: torch.Tensor, weight: torch.Tensor, dim: int) -> None:
    # The inputs arrive as (batch, features) with singleton dimensions in between.
    planes = [plane for plane in call.planes(x) if plane.ids.shape[-1] > 1 or plane.ids.numel() == weight.shape[dim]]
    reads = call.info(weight).along(dim)
    if reads is None or not planes:
        call.freeze([reads] if reads is not None else planes, "reads an input of fixed size")
        return
    ids = planes[0].ids.reshape(-1)
    call.unite(ids, reads.ids.reshape(-1))
    call.log.role(reads.leaf, "in")
    call.log.read(Read(ids, None if planes[0].value is None else planes[0].value.reshape(-1)))


@rule(aten.glu)
def glu(call: Call) -> None:
    """Unite the same position of the first half and of the second, whose sigmoid multiplies it."""
    dim = call.arg(1, "dim", -1) % len(call.shapes[0])
    planes = []
    for plane in call.planes(call.args[0]):
        if plane.ids.shape[dim] == 1:
            zero = None if plane.value is None else torch.where(plane.value == 0, 0.0, torch.nan)
            planes.append(plane.but(value=zero, origin=None, leaf=None))
            continue
        # Chunked by half, so both halves must lose the same positions.
        first, second = plane.ids.chunk(2, dim)
        call.unite(first, second)
        value = None if plane.value is None else plane.value.chunk(2, dim)
        zero = None if value is None else torch.where(value[0] == 0, 0.0, value[0] * value[1].sigmoid())
        planes.append(Plane(first, zero, None, None, plane.sources))
    call.emit(planes)


@rule(aten._weight_norm_interface)
def weight_norm(call: Call) -> None:
    """V * g / |v|: the norm may lose inputs if g makes up for them; the outputs are united with g."""
    v, g, dim = call.args[0], call.args[1], call.arg(2, "dim", 0)
    # Parameters as they are: of a transposed one the recipe would not know the dimension.
    leaves = [leaf_along(call.info(tensor), dim % v.ndim) for tensor in (v, g)]
    names = [leaf[0] for leaf in leaves if leaf is not None and leaf[1] == dim % v.ndim]
    planes = []
    for group in combine(call, [call.info(v), call.info(g)], [v.shape, g.shape], v.shape):
        own = group[0].ids.shape[dim] > 1
        value = call.value_of(group[-1]) if own and len(group) > 1 else call.value_of(group[0])
        zero = None if value is None else torch.where(value == 0, 0.0, torch.nan)
        if own:
            call.log.role(group[-1].leaf, "out")
        elif len(names) == 2:
            ids = group[0].ids.reshape(-1)
            known = None if zero is None else zero.reshape(-1)
            call.log.weight_norms.append(WeightNorm(names[1], names[0], dim % v.ndim, ids, known))
        else:
            call.read(group[0].but(value=zero))
        planes.append(merge(group, zero))
    call.emit(planes)


@rule(aten.equal)
def equal(call: Call) -> None:
    """Keep what `torch.equal` compares: its answer is one for all channels."""
    call.freeze([plane for tensor in call.tensors for plane in call.planes(tensor)], "compared as a whole")
