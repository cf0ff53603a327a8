"""LSTM, GRU and plain recurrent layers and cells: caught whole, before torch takes them apart step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves

from ..call import Call, TraceContext
from ..entries import Read
from ..labels import Plane, TensorInfo, attach, info_of, numel
from ..registry import rule
from .layer import leaf_along, output_value

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# The gate that makes the new content: where its rows are 0 (and the state starts at 0), the output is 0.
CONTENT = {"LSTM": 2, "GRU": 2, "RNN": 0}
FIXED = "starts from a given state of fixed size"


@rule(torch.ops.aten._pack_padded_sequence)
def packed(call: Call) -> None:
    """Follow the features of the steps of all sequences, which are laid one behind the other."""
    given = call.planes(call.args[0])
    call.freeze([plane for plane in given if min(plane.dims) < 2], "steps of sequences are packed")
    kept = [plane for plane in given if min(plane.dims) >= 2]
    call.emit(plane.map(lambda t: t.reshape((1, *t.shape[2:]))) for plane in kept)


def intercept(tracer: TraceContext, model: nn.Module) -> None:
    """Let the recurrent layers of a model (a copy) run unseen and be labelled as a whole."""
    # Torch runs these layers as one fused operation or as thousands of small ones, depending on device and version; the
    # rules below are those of the layer, not of its steps.
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            whole = recurrent if isinstance(module, nn.RNNBase) else cell
            # Past nn.Module.__setattr__, which would take time for nothing; the module is a copy that is thrown away.
            object.__setattr__(module, "forward", partial(_forward, tracer, module, whole, module.forward))


def _forward(
    tracer: TraceContext,
    module: nn.Module,
    whole: Callable[..., None],
    run: Callable[..., Any],
    input: Any,
    hx: Any = None,
) -> Any:
    shapes_only = isinstance(module, nn.RNNBase) and isinstance(input, Tensor) and input.is_meta
    tracer.quiet = True
    try:
        out = _results(module, input, hx) if shapes_only else run(input, hx)
    finally:
        tracer.quiet = False
    if shapes_only:
        tracer.macs += numel(input.shape[:-1]) * _weights_of_a_step(module)
    x, state = _tensor(input), [given for given in (hx if isinstance(hx, tuple) else (hx,)) if given is not None]
    call = Call(tracer, type(module), (x,), {}, [x, *state, *module.parameters()])
    call.out = tuple(_tensor(item) for item in tree_leaves(out, is_leaf=lambda item: isinstance(item, PackedSequence)))
    tracer.label_whole(call, lambda: whole(call, module, x, state))
    return out


def _results(module: Any, x: Tensor, hx: Any) -> Any:
    """Return results of the right shapes on the meta device, where torch goes through all time steps in Python."""
    batch = (x.shape[0 if module.batch_first else 1],) if x.ndim == 3 else ()
    sides = 2 if module.bidirectional else 1
    width = module.proj_size or module.hidden_size
    shapes = [(sides * module.num_layers, *batch, size) for size in (width, module.hidden_size)]
    shapes = shapes if isinstance(module, nn.LSTM) else shapes[:1]
    given = [] if hx is None else list(hx) if isinstance(hx, tuple) else [hx]
    if x.shape[-1] != module.input_size or any(tuple(t.shape) != s for t, s in zip(given, shapes, strict=False)):
        sizes = [tuple(tensor.shape) for tensor in (x, *given)]
        raise RuntimeError(f"sizes {sizes} do not fit {module}")
    state = tuple(x.new_empty(shape) for shape in shapes)
    return x.new_empty((*x.shape[:-1], sides * width)), state if isinstance(module, nn.LSTM) else state[0]


def _weights_of_a_step(module: Any) -> int:
    """Return how many weights act at each step of each sample."""
    return sum(weight.numel() for side in module.all_weights for weight in side if weight.ndim > 1)


def _tensor(value: Any) -> Tensor:
    return value.data if isinstance(value, PackedSequence) else value


def recurrent(call: Call, module: nn.RNNBase, x: Tensor, state: Sequence[Tensor]) -> None:
    """Unite the gates of each hidden unit, its inputs and its outputs; the first layer reads `x`."""
    kind = next(name for name in GATES if module.mode.startswith(name))
    reads = _features(call, x)
    starts = [_features(call, given) for given in state]
    zero = _starting_at_zero(module, state, starts)
    # An encoder's last state has the units of all layers; one that is projected has two kinds of them.
    fits = all(plane is not None or info_of(given).uniform for given, plane in zip(state, starts, strict=True))
    fits = fits and not (any(starts) and module.proj_size)
    every: list[tuple[Plane, Plane]] = []
    for layer in range(module.num_layers):
        made: list[Plane] = []
        for direction in range(2 if module.bidirectional else 1):
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            every.append(_unit(call, module, suffix, kind, reads, zero))
            made.append(every[-1][0])
            for start in starts if fits else ():
                if start is not None:
                    call.unite(start.ids, every[-1][0].ids)
            if not fits:
                call.freeze(every[-1], FIXED)
        values = [plane.value for plane in made if plane.value is not None]
        ids = torch.cat([plane.ids for plane in made])
        reads = Plane(ids, torch.cat(values) if len(values) == len(made) else None)
    if not fits:
        call.freeze(filter(None, starts), "the state that a recurrent layer starts from")
    if reads is not None:
        shape = [1] * (call.out[0].ndim - 1) + [-1]
        attach(call.out[0], TensorInfo((reads.map(lambda t: t.reshape(shape)),)))
    for final, units in zip(call.out[1:], zip(*every, strict=True), strict=False):  # (h, c) or h alone
        _finals(call, final, units)


def cell(call: Call, module: nn.RNNCellBase, x: Tensor, state: Sequence[Tensor]) -> None:
    """One step: the state that comes in and the one that goes out have the same units."""
    kind = type(module).__name__.removesuffix("Cell")
    planes = [_features(call, given) for given in state]
    zero = _starting_at_zero(module, state, planes)
    made, _ = _unit(call, module, "", kind, _features(call, x), zero)
    for given, plane in zip(state, planes, strict=True):
        if plane is not None:
            call.unite(plane.ids, made.ids)
        elif not info_of(given).uniform:
            call.log.freeze(made.ids, f"{call.place}: {FIXED}")
    shape = [1] * (call.out[0].ndim - 1) + [-1]
    for out in call.out:
        attach(out, TensorInfo((made.map(lambda t: t.reshape(shape)),)))


def _starting_at_zero(module: Any, state: Sequence[Tensor], planes: Sequence[Plane | None]) -> Tensor:
    """Return which units start at 0, as all do without a state: only these are 0 at all times where nothing is made."""
    zero = torch.ones(module.hidden_size, dtype=torch.bool)
    for given, plane in zip(state, planes, strict=True):
        known = info_of(given).storage.value if plane is None else plane.value
        zero = zero & (known == 0) if known is not None and _fits(known, zero) else torch.zeros_like(zero)
    return zero


def _fits(known: Any, units: Tensor) -> bool:
    return not isinstance(known, Tensor) or known.shape == units.shape


def _features(call: Call, x: Tensor) -> Plane | None:
    planes = info_of(x).current
    plane = next((p for p in planes if p.dims == (x.ndim - 1,)), None)
    call.freeze([p for p in planes if p is not plane], "read step by step")
    return None if plane is None else call.known(plane).map(lambda t: t.reshape(-1))


def _unit(call: Call, module: Any, suffix: str, kind: str, reads: Plane | None, zero: Tensor) -> tuple[Plane, Plane]:
    """Follow one layer in one direction, or a cell; return its outputs and its units. `zero`: who starts at 0."""
    weights = {name: getattr(module, name + suffix) for name in ("weight_ih", "weight_hh")}
    inputs = info_of(weights["weight_ih"]).along(1)
    if inputs is not None and reads is not None and inputs.ids.numel() == reads.ids.numel():
        call.unite(inputs.ids.reshape(-1), reads.ids)
        call.log.role(inputs.leaf, "in")
        call.log.read(Read(reads.ids, reads.value))
    elif inputs is not None:
        call.freeze([inputs], "reads an input of fixed size")
    hidden = Plane(_hidden(call, module, suffix, GATES[kind], weights), _value(call, module, suffix, kind, reads, zero))
    recurrent_in = info_of(weights["weight_hh"]).along(1)
    made = hidden
    if getattr(module, "proj_size", 0):
        made = _projected(call, hidden, getattr(module, "weight_hr" + suffix))
    if recurrent_in is not None:
        call.unite(recurrent_in.ids.reshape(-1), made.ids)
        call.log.role(recurrent_in.leaf, "in")
    call.log.read(Read(made.ids, made.value))
    return made, hidden


def _projected(call: Call, hidden: Plane, weight: Tensor) -> Plane:
    """Return the channels that an LSTM makes of its hidden units by another matrix."""
    projection = info_of(weight)
    call.unite(_flat(projection, 1, weight.shape[1]), hidden.ids)
    call.log.read(Read(hidden.ids, hidden.value))
    call.log.role(leaf_along(projection, 0), "out")
    call.log.role(leaf_along(projection, 1), "in")
    value = output_value(call, call.weight(weight), hidden.value, 1, None, False)
    return Plane(_flat(projection, 0, len(weight)), value)


def _flat(info: TensorInfo, dim: int, size: int) -> Tensor:
    plane = info.along(dim)
    return torch.zeros(size, dtype=torch.int64) if plane is None else plane.ids.reshape(-1)


def _hidden(call: Call, module: Any, suffix: str, gates: int, weights: dict[str, Tensor]) -> Tensor:
    """Unite the same unit of every gate, in weights and biases; return the units."""
    vectors = dict(weights)
    if module.bias:
        vectors |= {name: getattr(module, name + suffix) for name in ("bias_ih", "bias_hh")}
    hidden = _flat(info_of(weights["weight_ih"]), 0, gates * module.hidden_size).reshape(gates, -1)[0]
    for tensor in vectors.values():
        plane = info_of(tensor).along(0)
        if plane is not None:
            call.unite(plane.ids.reshape(gates, -1), hidden.reshape(1, -1))
            call.log.role(plane.leaf, "out")
    return hidden


def _value(call: Call, module: Any, suffix: str, kind: str, reads: Plane | None, zero: Tensor) -> Tensor | None:
    """Return 0 for units that start at 0 and whose content gate has only zeros."""
    if call.tracer.weights is None:
        return None
    names = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if module.bias else [])
    # h_t = o * tanh(f * c + i * g): with c_0 = 0 and g = 0 at all times c stays 0, whatever the other gates do. Of a
    # GRU h_t = (1 - z) * n + z * h, with n = 0 and h_0 = 0 the same.
    silent = zero.clone()
    for name in names:
        known = info_of(getattr(module, name + suffix)).weight
        if known is None:
            return None
        rows = call.tracer.weights[known[0]].detach().reshape(GATES[kind], module.hidden_size, -1)[CONTENT[kind]]
        if name == "weight_ih" and reads is not None and reads.value is not None:
            rows = rows[:, (reads.value != 0).to(rows.device)]
        silent &= (rows == 0).all(1).cpu()
    return torch.where(silent, 0.0, torch.nan).double() if bool(silent.any()) else None


def _finals(call: Call, final: Tensor, made: Sequence[Plane]) -> None:
    """Unite the units of several layers side by side in the last states, (layers * directions, batch, units)."""
    # (layers, batch, units) is one tensor: all layers have the same number of units in it, so unit i of all goes
    # together.
    units = torch.stack([plane.ids for plane in made])
    call.unite(units, units[:1])
    values = [plane.value for plane in made if plane.value is not None]
    value = None
    if len(values) == len(made):
        value = torch.where((torch.stack(values) == 0).all(0), 0.0, torch.nan)
    plane = Plane(units[0], value)
    attach(final, TensorInfo((plane.map(lambda t: t.reshape([1] * (final.ndim - 1) + [-1])),)))
