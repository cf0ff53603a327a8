"""What convolutions and linear layers have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from ..call import Call
from ..constants import layer_value
from ..entries import LayerCall
from ..labels import Plane, TensorInfo, same_value


def follow_bias(call: Call, plane: Plane, bias: Tensor | None, dim: int, entry: LayerCall | None) -> Plane:
    """Unite a layer's output channels (along `dim`) with its bias."""
    if bias is None:
        return plane
    vector = call.info(bias).along(call.info(bias).planes[0].ids.ndim - 1) if call.info(bias).planes else None
    if vector is None:
        call.freeze([plane], "a bias of fixed size")
        return plane
    call.unite(plane.ids.reshape(-1), vector.ids.reshape(-1))
    call.log.role(vector.leaf, "out")
    if entry is not None and vector.leaf is not None:
        entry.bias = vector.leaf[0]
    return plane


def bias_value(call: Call, bias: Tensor | None) -> Tensor | None:
    """Return the values of a bias vector: zeros without one, None where they are not known."""
    if bias is None:
        return torch.zeros((), dtype=torch.float64)
    plane = next(iter(call.planes(bias)), None)
    value = None if plane is None else call.value_of(plane)
    return None if value is None else value.reshape(-1)


def output_value(
    call: Call, weight: Tensor | None, inputs: Tensor | None, groups: int, bias: Tensor | None, padded: bool
) -> Tensor | None:
    """Return `layer_value` where weight and bias are known; another run on the same inputs looks at no weight again."""
    if weight is None or call.tracer.weights is None:
        return None
    known = bias_value(call, bias)
    key = (weight.data_ptr(), weight.shape, weight.stride(), groups, padded)
    before, value, _ = call.tracer.layer_values.get(key, (None, None, None))
    if key not in call.tracer.layer_values or not _same(before, inputs):
        value = layer_value(weight, inputs, groups, None, padded)
        call.tracer.layer_values[key] = inputs, value, weight  # kept, so that no other comes to lie at its address
    return None if value is None or known is None else value + known


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and a.shape == b.shape and bool(same_value(a, b).all()))


def chain(call: Call, plane: Plane, *leaves: tuple[str, int] | None) -> None:
    """Note parameter dimensions that act on the output of a single layer before anything is added to it."""
    # Behind a residual sum a norm acts on several layers: it is not part of the chain of any one of them.
    if len(plane.sources) == 1:
        entry = call.log.layers[next(iter(plane.sources))]
        entry.chain += [leaf for leaf in leaves if leaf is not None]


def leaf_along(info: TensorInfo, dim: int) -> tuple[str, int] | None:
    """Return the parameter dimension that a tensor's dimension is, if it is one."""
    plane = info.along(dim)
    return plane.leaf if plane is not None else None
