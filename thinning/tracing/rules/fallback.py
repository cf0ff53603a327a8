"""Operations without a rule, and operations on tensors that hold no channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..call import Call
from ..labels import Storage, TensorInfo, attach, info_of
from ..registry import operations, rule

aten = torch.ops.aten
DRAWN = "bernoulli_ uniform_ normal_ exponential_ geometric_ log_normal_ cauchy_ random_"
# What these make is all alike as far as removal goes: any part of a tensor of zeros, of ones, of random numbers (which
# differ from run to run anyway) or of what was never written may go without a change of the function.
UNIFORM = set(
    operations(
        "zeros ones full empty rand randn zeros_like ones_like full_like empty_like rand_like randn_like new_zeros"
        " new_ones new_full new_empty empty_strided new_empty_strided bernoulli"
        f" {DRAWN} native_dropout fill_ zero_ _to_copy clone scalar_tensor repeat flip roll"
    )
)

RANDOM = set(operations(DRAWN))
NEW = (aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty, aten.new_empty_strided)
VALUES = dict.fromkeys((aten.zeros, aten.zeros_like, aten.new_zeros, aten.zero_), 0.0)
VALUES |= dict.fromkeys((aten.ones, aten.ones_like, aten.new_ones), 1.0)
COPY = {aten._to_copy, aten.clone, aten.repeat, aten.flip, aten.roll}


def fallback(call: Call) -> None:
    """Without a rule everything that goes in is frozen, and says so; what is written to is no longer all alike."""
    if call.func._schema.is_mutable:
        call.infos[0].storage.uniform, call.infos[0].storage.value = False, None
    call.give_up("the operation has no rule")


@rule(*NEW)
def new(call: Call) -> None:
    """Emit nothing: only type and device are taken from the tensor."""


def freshen(call: Call) -> None:
    """Note that a new tensor is uniform, where the one that it was asked of has channels."""
    if call.func.overloadpacket in NEW:
        info_of(call.out).storage = Storage(uniform=True, value=VALUES.get(call.func.overloadpacket))


def unlabelled(call: Call) -> None:
    """Follow which tensors are uniform (all elements alike, perhaps 0): removing any part of them changes nothing."""
    mutable = call.func._schema.is_mutable
    uniform = all(info.storage.uniform for info in call.infos)
    if mutable and call.infos:
        storage = call.infos[0].storage
        # A write into a part leaves the rest as it was: the whole is no longer all alike.
        part = call.tensors[0]._is_view()
        whole = call.func.overloadpacket in UNIFORM and not part
        alike = torch.Tag.pointwise in call.func.tags and not part
        storage.uniform = storage.uniform and (whole or alike or _random(call)) and uniform
        storage.value = VALUES.get(call.func.overloadpacket) if whole else None
        return
    known = call.func.overloadpacket in UNIFORM or torch.Tag.pointwise in call.func.tags or call.func.is_view
    for tensor in call.outputs():
        info = TensorInfo(cause=call.cause)
        if call.func.is_view and call.infos:
            info.storage = call.infos[0].storage
        else:
            info.storage.uniform = known and (uniform or call.func.overloadpacket in NEW)
        if (value := _known(call)) is not None:
            info.storage.value = value
        attach(tensor, info)


def _random(call: Call) -> bool:
    return call.func.overloadpacket in RANDOM


def _known(call: Call) -> float | None:
    """Return what all elements of a new tensor equal: zeros, ones, a number in the code, what is computed of these."""
    packet = call.func.overloadpacket
    if packet in COPY:
        return call.infos[0].storage.value
    if packet is aten.lift_fresh and call.out.numel() == 1 and not (call.out.is_meta or call.out.is_complex()):
        return float(call.out.item())
    if packet in (aten.full, aten.full_like, aten.new_full):
        fill = call.arg(2 if packet is aten.new_full else 1, "fill_value")
        return float(fill) if isinstance(fill, (int, float)) else None
    return VALUES[packet] if packet in VALUES else _computed(call)


def _computed(call: Call) -> float | None:
    """Return the result of an element-wise operation on known numbers (a slope that is learnt), computed as it will be.

    None where one is not known.
    """
    known = {id(t): info.storage.value for t, info in zip(call.tensors, call.infos, strict=True)}
    each = torch.Tag.pointwise in call.func.tags or call.func.overloadpacket is aten.softplus
    if not each or not known or None in known.values() or torch.Tag.nondeterministic_seeded in call.func.tags:
        return None

    def number(tensor: Tensor) -> Tensor:
        return torch.tensor(known[id(tensor)], dtype=tensor.dtype, device="cpu")

    try:
        result = call.func(*tree_map_only(Tensor, number, call.args), **tree_map_only(Tensor, number, call.kwargs))
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    return float(result) if isinstance(result, Tensor) and not result.is_complex() and not result.is_meta else None
