"""Normalisations. BatchNorm and InstanceNorm are exact; what averages over channels is inexact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..call import Call
from ..entries import AttributeCount, MeanOver
from ..labels import Plane, TensorInfo
from ..registry import operations, rule
from .elementwise import combine, merge
from .layer import chain

aten = torch.ops.aten


def _normalize(
    call: Call, x: TensorInfo, shape: Sequence[int], dims: Sequence[int], vectors: Sequence[Tensor | None]
) -> None:
    """Unite the vectors (weight, bias, statistics), laid along `dims` of the input, with the channels there."""
    present = [vector for vector in vectors if vector is not None]
    infos: list[TensorInfo] = [x]
    shapes: list[tuple[int, ...]] = [tuple(shape)]
    # Weight, bias and statistics become operands laid along the normalised axes: then a norm is an element-wise
    # operation, and uniting, freezing and roles are those of `combine`.
    for vector in present:
        layout = [size if dim in dims else 1 for dim, size in enumerate(shape)]
        laid = tuple(plane.map(partial(_lay, ndim=len(shape), dims=dims)) for plane in call.planes(vector))
        infos.append(TensorInfo(laid, call.info(vector).storage, call.info(vector).storage.version))
        shapes.append(tuple(layout))
    planes: list[Plane] = []
    for group in combine(call, infos, shapes, shape):
        _roles(call, group, vectors)
        planes.append(merge(group, _value(call, group, vectors, dims)))
    for out in call.outputs()[:1]:
        call.emit(planes, out)


def _lay(tensor: Tensor, ndim: int, dims: Sequence[int]) -> Tensor:
    shape = [1] * ndim
    for dim, size in zip(dims, tensor.shape, strict=True):
        shape[dim] = size
    return tensor.reshape(shape)


def _roles(call: Call, group: Sequence[Plane], vectors: Sequence[Tensor | None]) -> None:
    weight, bias = (_name(call, vector) for vector in vectors[:2])
    for plane in group[1:]:
        name = plane.leaf[0] if plane.leaf is not None else None
        call.log.role(
            plane.leaf, "scale" if weight and name == weight else "shift" if bias and name == bias else "vector"
        )
    x = group[0]
    leaves = [plane.leaf for plane in group[1:] if plane.leaf and call.log.roles.get(plane.leaf) in ("scale", "shift")]
    if leaves:
        chain(call, x, *leaves)
        if x.origin is not None:
            # Gates on a layer whose norm follows directly scale the norm instead: the norm would undo a scale of its
            # input.
            call.log.layers[x.origin].norm = leaves[0][0]


def _name(call: Call, vector: Tensor | None) -> str | None:
    """Return the parameter that a vector is, also where InstanceNorm repeats it for each sample."""
    leaves = [plane.leaf for plane in call.planes(vector) if plane.leaf is not None]
    return leaves[0][0] if leaves else None


def _value(call: Call, group: Sequence[Plane], vectors: Sequence[Tensor | None], dims: Sequence[int]) -> Tensor | None:
    """Return (x - mean) / deviation * weight + bias: the bias where x is known to be the mean or the weight is 0."""
    if call.tracer.weights is None:
        return None
    x, shape = call.value_of(group[0]), group[0].ids.shape
    layout = [size if dim in dims else 1 for dim, size in enumerate(shape)]
    weight, bias, mean, var = (_vector(call, vector, layout) for vector in (*vectors, None, None)[:4])
    # A plane along another axis (tokens under a LayerNorm over features): the norm of zeros is its bias.
    if not set(group[0].dims) & set(dims):
        keeps = x is not None and vectors[1] is None
        return torch.where(x == 0, 0.0, torch.nan) if keeps and x is not None else None
    if (vectors[0] is not None and weight is None) or (vectors[1] is not None and bias is None):
        return None
    base = torch.full(shape, torch.nan, dtype=torch.float64) if x is None else x
    if mean is not None and var is not None:
        eps = float(call.named("eps", 1e-5))
        # BatchNorm in eval mode is a fixed affine function, so constants stay known through it.
        base = (base - mean) / (var + eps).sqrt()
    elif _averages(call):
        base = _averaged(call, base)
    else:
        # A channel that is constant has deviation 0 and equals its mean (InstanceNorm): it becomes 0 before the scale.
        base = torch.where(base.isnan(), torch.nan, 0.0)
    if weight is not None:
        # A scale of 0 makes its bias of any input: how BatchNorm channels die in training with an L1 penalty on the
        # scales.
        base = torch.where(weight == 0, 0.0, base * weight)
    if bias is not None:
        base = base + bias
    return None if bool(base.isnan().all()) else base


def _averaged(call: Call, x: Tensor) -> Tensor:
    """Return 0 for groups all of whose channels are known to equal the same; a root mean square keeps each 0."""
    unknown = torch.full_like(x, torch.nan)
    if "rms" in call.name:
        return torch.where(x == 0, 0.0, unknown)
    if call.func.overloadpacket is not aten.native_group_norm or x.numel() % int(call.args[6]):
        return unknown
    groups = x.reshape(int(call.args[6]), -1)
    constant = (groups == groups[:, :1]).all(1, keepdim=True).expand(groups.shape)
    return torch.where(constant.reshape(x.shape), 0.0, unknown)


def _averages(call: Call) -> bool:
    """Return whether the statistics are taken over several channels."""
    return call.func.overloadpacket in AVERAGING


def _vector(call: Call, vector: Tensor | None, layout: Sequence[int]) -> Tensor | None:
    """Return the known values of a vector, laid along the input's dimensions; None where they do not fit."""
    plane = next(iter(call.planes(vector)), None) if vector is not None else None
    value = call.value_of(plane) if plane is not None else None
    return value.reshape(layout) if value is not None and value.numel() == math.prod(layout) else None


@rule(*operations("native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm"))
@rule(*operations("miopen_batch_norm _batch_norm_with_update _batch_norm_no_update batch_norm"))
def batch_norm(call: Call) -> None:
    """Follow one mean and one deviation a channel."""
    x = call.args[0]
    names = ("weight", "bias", "running_mean", "running_var")
    vectors = [call.named(name) for name in names]
    if call.named("training", False):
        # A layer that standardises its own filters (so torch's BatchNorm is used for it) averages over their inputs.
        for plane in call.planes(x):
            if plane.leaf is not None and 1 in plane.dims:
                call.log.role(plane.leaf, "out")  # filters of zeros stay zeros
            elif plane.leaf is not None:
                call.log.mark_inexact(plane.ids, f"{call.place}: standardises filters by their mean over the channels")
        _normalize(call, call.info(x), call.shapes[0], [1], [None, None, *vectors[2:]])
        # In training the statistics are of the batch, so running ones only have to keep the same channels.
        vectors = vectors[:2]
    _normalize(call, call.info(x), call.shapes[0], [1], vectors)
    if all(vector is None for vector in vectors):
        _note_size(call, x)


def _note_size(call: Call, x: Tensor) -> None:
    """Note the size of a norm without vectors, which knows it by a number only."""
    frame, plane = call.tracer.frame, call.info(x).along(1)
    count = getattr(frame.module, "num_features", None)
    if isinstance(frame.module, _NormBase) and plane is not None and plane.ids.numel() % (count or 1) == 0:
        entry = AttributeCount(frame.name, "num_features", None, plane.ids.reshape(-1)[:count])
        if all((entry.module, entry.name) != (other.module, other.name) for other in call.log.attributes):
            call.log.attributes.append(entry)


@rule(*operations("native_layer_norm layer_norm _fused_rms_norm rms_norm"))
def layer_norm(call: Call) -> None:
    """Follow an average over the last dimensions."""
    shape = call.shapes[0]
    count = len(call.named("normalized_shape"))
    dims = list(range(len(shape) - count, len(shape)))
    planes = _over(call, call.planes(call.args[0]), dims)
    info = TensorInfo(tuple(planes), call.info(call.args[0]).storage, call.info(call.args[0]).storage.version)
    _normalize(call, info, shape, dims, [call.named("weight"), call.named("bias")])


def _mean_over(call: Call, plane: Plane) -> None:
    why = f"{call.place}: averages over the channels"
    if "rms" in call.name:
        value = None if plane.value is None else plane.value.reshape(-1)
        ndim, dim = plane.ids.ndim, plane.dims[-1]
        call.log.mean(MeanOver(plane.ids.reshape(-1), value, call.tracer.frame.name, why, ndim, dim))
    else:
        call.log.mark_inexact(plane.ids, why)


def _over(call: Call, planes: Sequence[Plane], dims: Sequence[int]) -> list[Plane]:
    kept = []
    for plane in planes:
        left: Plane | None = plane
        if set(plane.dims) <= set(dims):
            _mean_over(call, plane)
        else:
            for dim in dims:
                left = call.collapse(left, dim, "") if left is not None else None
        kept += [left] if left is not None else []
    return kept


@rule(*operations("native_group_norm"))
def group_norm(call: Call) -> None:
    """Follow averages over groups of channels: whole groups go."""
    x, weight, bias, _, channels, _, groups = call.args[:7]
    for plane in call.planes(x):
        if plane.ids.shape[1] > 1 and groups == 1:
            call.log.mark_inexact(plane.ids, f"{call.place}: averages over the channels")
        elif plane.ids.shape[1] > 1 and groups != channels and plane.dims == (1,):
            rows, frame = plane.ids.reshape(groups, -1), call.tracer.frame
            known = isinstance(frame.module, nn.GroupNorm)
            count = AttributeCount(frame.name, "num_groups", None, rows[:, 0].contiguous()) if known else None
            call.log.groups(rows, f"{call.place}: averages over the channels of a group", count)
        elif plane.ids.shape[1] > 1 and groups != channels:
            call.freeze([plane], "varies within the image")
    _normalize(call, call.info(x), call.shapes[0], [1], [weight, bias])


AVERAGING = set(operations("native_layer_norm layer_norm _fused_rms_norm rms_norm native_group_norm"))
