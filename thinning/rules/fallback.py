"""Operations without a rule, and operations on tensors that hold no channels."""

from __future__ import annotations

import torch

from ..call import Call
from ..node import Node, attach

aten = torch.ops.aten
UNIFORM = {
    getattr(aten, name)
    for name in [
        "zeros",
        "ones",
        "full",
        "empty",
        "rand",
        "randn",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "bernoulli",
        "bernoulli_",
        "uniform_",
        "normal_",
        "native_dropout",
        "fill_",
        "zero_",
        "_to_copy",
        "clone",
        "scalar_tensor",
    ]
}


def fallback(call: Call) -> None:
    """Without a rule everything that goes in is frozen, and says so."""
    call.give_up("the operation has no rule")


def unlabelled(call: Call) -> None:
    """Follow which tensors are uniform (all elements alike), so that removing any part of them changes nothing."""
    mutable = call.func._schema.is_mutable
    uniform = all(node.cell.uniform for node in call.nodes)
    if mutable and call.nodes:
        cell = call.nodes[0].cell
        whole = call.func.overloadpacket in UNIFORM and not call.tensors[0]._is_view()
        cell.uniform = cell.uniform and (whole or _random(call)) and uniform
        return
    known = call.func.overloadpacket in UNIFORM or torch.Tag.pointwise in call.func.tags or call.func.is_view
    for tensor in call.outputs():
        node = Node()
        if call.func.is_view and call.nodes:
            node.cell = call.nodes[0].cell
        else:
            node.cell.uniform = known and uniform
        attach(tensor, node)


def _random(call: Call) -> bool:
    return call.func.overloadpacket in (aten.bernoulli_, aten.uniform_, aten.normal_)
