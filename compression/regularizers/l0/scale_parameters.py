"""Puts gates on parameters for the time of a forward pass, without a trace in the model.

Scaling a parameter (the weight and bias of a norm, else of the convolution or Linear) by a gate costs nothing that
grows with the activations, and at the end the gates can be multiplied into the parameters for good.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, compiled_of, on_cpu, unwrapped

Place = tuple[dict[str, Any], str]


class GateSource(Protocol):
    """What gives the gates of a forward pass."""

    def draw(self, training: bool) -> Tensor | None:
        """Return (gates,), or None where the gates do not act now."""


class FixedGates:
    """Gates that never change: those of a copy of a gated model."""

    def __init__(self, values: Tensor | None) -> None:
        """Take the values, (gates,), or None for no gates."""
        self.values = values

    def draw(self, training: bool) -> Tensor | None:
        """Return the values."""
        return self.values


@dataclass(frozen=True)
class Layout:
    """Which gate multiplies which element of which parameter.

    Attributes:
        gates: (channel ids + 1,): the gate of each channel id, `count` for those without.
        count: number of gates.
        vectors: parameters of one dimension, scaled all in one operation.
        tensors: other parameters, with the dimension that is scaled.
        index: the gate of each element of all vectors, then of each index of the tensors' dimensions.
        sizes: how many entries of `index` belong to each vector, then to each tensor.
    """

    gates: Tensor
    count: int
    vectors: tuple[str, ...]
    tensors: tuple[tuple[str, int], ...]
    index: Tensor
    sizes: tuple[int, ...]

    @classmethod
    @on_cpu
    def of(cls, graph: ChannelGraph, channels: Tensor) -> Layout:
        """Return the layout for one gate on each of the channels (ids of the graph, each once)."""
        gates = torch.full((graph.count + 1,), len(channels))
        gates[channels] = torch.arange(len(channels))
        indices: dict[tuple[str, int], Tensor] = {}
        for scale in graph.scales(channels):
            size = graph.shapes[scale.name][scale.dim]
            index = indices.setdefault((scale.name, scale.dim), torch.full((size,), len(channels)))
            index[scale.index] = gates[scale.channel]
        vectors = tuple(name for name, _ in indices if len(graph.shapes[name]) == 1)
        tensors = tuple(key for key in indices if len(graph.shapes[key[0]]) > 1)
        parts = [indices[key] for key in [*((name, 0) for name in vectors), *tensors]]
        if not parts:
            makers = "a recurrent layer's own gates make them, or a weight norm"
            raise ValueError(f"nothing makes these channels that a gate could scale ({makers})")
        return cls(gates, len(channels), vectors, tensors, torch.cat(parts), tuple(len(part) for part in parts))

    @property
    def names(self) -> tuple[str, ...]:
        """The scaled parameters, each once."""
        return tuple(dict.fromkeys([*self.vectors, *(name for name, _ in self.tensors)]))

    def scaled(self, parameters: list[Tensor], factors: Tensor) -> list[Tensor]:
        """Return the parameters `names` times their factors (as many as `index`), differentiable in both."""
        many = len(self.vectors)
        # Norms and biases are many and short: side by side they are one multiplication. Weights are long, and copying
        # them together would cost more than it saves.
        results: dict[str, Tensor] = {}
        if many:
            sizes = list(self.sizes[:many])
            pieces = (torch.cat(parameters[:many]) * factors[: sum(sizes)]).split(sizes)
            results = dict(zip(self.vectors, pieces, strict=True))
        results.update(zip(self.names[many:], parameters[many:], strict=True))
        rest = factors[len(factors) - sum(self.sizes[many:]) :].split(list(self.sizes[many:]))
        for (name, dim), factor in zip(self.tensors, rest, strict=True):
            tensor = results[name]
            results[name] = tensor * factor.view([-1 if axis == dim else 1 for axis in range(tensor.dim())])
        return list(results.values())


class GatedForward:
    """A pair of hooks on the root module: scaled parameters in, the parameters themselves out again.

    In between, modules hold tensors that are no parameters; outside of the forward pass nothing can be seen. A copy of
    the model (`copy.deepcopy`, pickle) gets hooks of its own with the gates of evaluation as they are at that time.
    """

    def __init__(self, layout: Layout, source: GateSource) -> None:
        """Take what to scale and what gives the gates."""
        self.layout, self.source = layout, source
        self._index = layout.index
        self._root: weakref.ref[nn.Module] = lambda: None  # type: ignore[assignment]
        self._places: list[list[Place]] = []
        self._held: list[tuple[Place, nn.Parameter]] = []
        self._depth = 0

    def install(self, root: nn.Module) -> list[Any]:
        """Put the hooks on the root module, or on what was compiled of it; gives their handles."""
        compiled = compiled_of(root)
        leave, root = Leave(self), root if compiled is None else compiled
        # Of two that scale a parameter the last to come leaves first: what it puts back is the other's product.
        behind = root.register_forward_hook(leave, prepend=True, always_call=True)
        return [root.register_forward_pre_hook(self), behind]

    def __call__(self, root: nn.Module, args: Any) -> None:
        """Put the scaled parameters into the modules, before the forward pass."""
        self._depth += 1  # a model that calls itself is scaled once, by its outermost call
        root = unwrapped(root)
        gates = self.source.draw(root.training) if self._depth == 1 else None
        if gates is None:
            return
        # Where tensors lie is found once a model; a weak reference, since the hook must not keep it alive.
        if self._root() is not root:
            self._root, self._places = weakref.ref(root), _places(root, self.layout.names)
        parameters = [table[key] for (table, key), *_ in self._places]
        if parameters[0].is_meta:  # shapes only, as in tracing
            return
        values = self.layout.scaled(parameters, self._factors(gates, parameters[0]))
        for places, parameter, value in zip(self._places, parameters, values, strict=True):
            for place in places:
                self._held.append((place, parameter))
                # Into the module's own table: `setattr` refuses a tensor that is no parameter under this name.
                place[0][place[1]] = value

    def leave(self) -> None:
        """Put the parameters back after the forward pass, also a failed one."""
        self._depth = max(0, self._depth - 1)
        if self._depth == 0:
            for (table, key), parameter in self._held:
                table[key] = parameter
            self._held.clear()

    def _factors(self, gates: Tensor, like: Tensor) -> Tensor:
        gates = gates.to(like)
        if self._index.device != gates.device:
            self._index = self._index.to(gates.device)
        return torch.cat([gates, gates.new_ones(1)])[self._index]

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a copy is made of: the layout and fixed gates."""
        with torch.no_grad():
            values = self.source.draw(False)
        return GatedForward, (self.layout, FixedGates(None if values is None else values.detach().clone()))


class Leave:
    """The hook after the forward pass."""

    def __init__(self, gated: GatedForward) -> None:
        """Take the hook before it."""
        self.gated = gated

    def __call__(self, root: nn.Module, args: Any, output: Any) -> None:
        """Put the parameters back."""
        self.gated.leave()


def tensor_of(root: nn.Module, name: str) -> Tensor:
    """Return the parameter or buffer of a name."""
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(root.get_submodule(path), leaf)
    return tensor


def tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return where a module holds what gates can scale: its parameters and buffers (those of a frozen norm)."""
    return module._parameters, module._buffers


def _places(root: nn.Module, names: tuple[str, ...]) -> list[list[Place]]:
    """Return where each named parameter or buffer is held: all modules and names under which a tied one appears."""
    where: dict[int, list[Place]] = {}
    for module in root.modules():
        for table in tables(module):
            for key, tensor in table.items():
                if tensor is not None:
                    where.setdefault(id(tensor), []).append((table, key))
    return [where[id(tensor_of(root, name))] for name in names]
