"""What tracing finds: which slices of which parameters are the same channel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from .errors import ThinningError
from .label_sets import class_of_label, members
from .running.default_device import on_cpu

Role = Literal["out", "in", "scale", "shift", "vector"]
Slices = dict[str, list[tuple[int, Tensor]]]


@dataclass(frozen=True)
class Use:
    """One dimension of one parameter or buffer whose indices are channels.

    `channels` (int64, length = size of `dim`) holds the channel of each index, 0 where it can never be removed.
    `role`: "out" makes the channel (filters and their bias), "in" reads it, "scale" and "shift" are the weight and bias
    of a normalisation (or a parameter that is multiplied or added), "vector" passes along (running statistics, PReLU).
    `labels` are the same integers with the frozen ones named as well.
    """

    name: str
    dim: int
    channels: Tensor = field(repr=False)
    role: Role
    module: str
    labels: Tensor = field(repr=False)


@dataclass(frozen=True)
class Layer:
    """One call of a convolution or linear layer.

    `positions` is the number of multiply-adds per weight element for one sample. `normalized` says that a
    normalisation follows directly; `chain` lists the (parameter, dim) of the normalisations and depthwise filters that
    see this layer's output before anything else is added to it.
    """

    weight: str
    bias: str | None
    in_dim: int
    out_dim: int
    groups: int
    positions: float
    in_channels: Tensor = field(repr=False)
    out_channels: Tensor = field(repr=False)
    depthwise: bool = False
    normalized: bool = False
    chain: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Scale:
    """Element `index` of dimension `dim` of parameter `name` is multiplied by the gate of `channel`."""

    name: str
    dim: int
    index: int
    channel: int


@dataclass(frozen=True)
class ChannelClass:
    """Channels with the same uses. `status`: "removable", "inexact" or "frozen"; `reason`: which operation, where."""

    status: Literal["removable", "inexact", "frozen"]
    reason: str
    channels: Tensor = field(repr=False)
    uses: tuple[tuple[str, int, Role], ...] = ()

    @property
    def size(self) -> int:
        """Return the number of channels (each may be several indices of a parameter)."""
        return len(self.channels)


@dataclass(frozen=True)
class AttributeUse:
    """The integer attribute `module.name` (or its element `index`) counts the kept ones among `labels`."""

    module: str
    name: str
    index: int | None
    labels: Tensor = field(repr=False)


@dataclass(frozen=True)
class ChannelGraph:
    """Which slices of which parameters are the same channel; made by `trace`.

    `frozen[label]` and `inexact[label]` are indices into `reasons`, -1 for none; label 0 is no channel.
    """

    uses: tuple[Use, ...]
    layers: tuple[Layer, ...]
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    frozen: Tensor = field(repr=False)
    inexact: Tensor = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    aliases: dict[str, str] = field(default_factory=dict, repr=False)
    attributes: tuple[AttributeUse, ...] = ()
    other_macs: float = 0.0

    @cached_property
    def _uses_of(self) -> dict[str, list[Use]]:
        table: dict[str, list[Use]] = {}
        for use in self.uses:
            table.setdefault(use.name, []).append(use)
        return table

    @cached_property
    def count(self) -> int:
        """Return the number of labels; ids run from 1 to it, so `torch.ones(graph.count + 1)` is "all alive"."""
        return len(self.frozen) - 1

    def use(self, name: str, dim: int = 0) -> Use | None:
        """Return the use of dimension `dim` of parameter `name`; None where its indices are no channels."""
        name = self.aliases.get(name, name)
        if name not in self.shapes:
            raise ThinningError(f"'{name}' is no parameter or buffer of the traced model")
        if not -len(self.shapes[name]) <= dim < max(1, len(self.shapes[name])):
            raise ThinningError(f"'{name}' has shape {list(self.shapes[name])}, so no dimension {dim}")
        dim %= max(1, len(self.shapes[name]))
        return next((use for use in self._uses_of.get(name, ()) if use.dim == dim), None)

    @on_cpu
    def channels_of(self, name: str, dim: int = 0) -> Tensor:
        """Return the channel ids (int64) of the indices of dimension `dim` of parameter `name`, 0 for a frozen one."""
        use = self.use(name, dim)
        return use.channels if use else torch.zeros(self.shapes[self.aliases.get(name, name)][dim], dtype=torch.int64)

    def classes(self) -> list[ChannelClass]:
        """Return all channels, those with the same uses and the same status together."""
        group = class_of_label([use.labels for use in self.uses], self.frozen, self.inexact)
        channels = members(group)
        used: dict[int, list[Use]] = {}
        for use in self.uses:
            for index in group[use.labels[use.labels > 0]].unique().tolist():
                used.setdefault(index, []).append(use)
        return [self._class(channels[index], uses) for index, uses in used.items()]

    def _class(self, labels: Tensor, uses: Iterable[Use]) -> ChannelClass:
        triples = tuple((use.name, use.dim, use.role) for use in uses)
        first = int(labels[0])
        if self.frozen[first] >= 0:
            return ChannelClass("frozen", self.reasons[int(self.frozen[first])], labels, triples)
        if self.inexact[first] >= 0:
            return ChannelClass("inexact", self.reasons[int(self.inexact[first])], labels, triples)
        return ChannelClass("removable", "", labels, triples)

    def coverage(self, name: str, indices: Iterable[int] | Tensor, dim: int = 0, whole_class: bool = False) -> Slices:
        """Return every slice that has to be zero so that the channels of `name[indices]` are dead.

        Parameter -> [(dim, indices)]: the filters themselves, their bias, the weight and bias of the normalisations
        and the depthwise filters that follow. A channel that several layers produce (a residual sum) is covered only
        along this layer's own chain, unless `whole_class`. Of `name` itself no index is added: where a channel has
        other indices in it that are not given, or cannot be removed, what follows is covered index by index.
        """
        return coverage_of(self, name, indices, dim, whole_class)

    def followers(self, name: str, dim: int = 0) -> set[tuple[str, int]]:
        """Return (parameter, dim) of a layer's own chain: weight, bias, norms and depthwise filters before any sum."""
        return _own(self, self.aliases.get(name, name), dim)

    @cached_property
    def makers(self) -> Tensor:
        """Return how many different weights make each label (depthwise filters pass it on, so they do not count)."""
        return self.made_by({layer.weight for layer in self.layers})

    @cached_property
    def out_dims(self) -> dict[str, int]:
        """Return the weights that make channels, and the dimension of each along which it does.

        Those of layers, of which the first call counts, then of recurrent layers, tables and experts; no vectors, which
        go with their layer, and no depthwise filters, which pass channels on.
        """
        found: dict[str, int] = {}
        for layer in self.layers:
            if not layer.depthwise:
                found.setdefault(layer.weight, layer.out_dim)
        known = {layer.weight for layer in self.layers}
        for use in self.uses:
            if use.role == "out" and use.name not in known and len(self.shapes[use.name]) > 1:
                found.setdefault(use.name, use.dim)
        return found

    def made_by(self, weights: Collection[str]) -> Tensor:
        """Return how many of some weights make each label."""
        count = torch.zeros(self.count + 1, dtype=torch.int64)
        for weight, dim in {(layer.weight, layer.out_dim) for layer in self.layers if not layer.depthwise}:
            if weight in weights and (use := self.use(weight, dim)) is not None:
                count[use.labels.unique()] += 1
        return count

    def scales(self, channels: Iterable[int] | Tensor) -> list[Scale]:
        """Return the slices that gates on `channels` multiply, so that a gate of 0 makes its channel's values 0.

        Weight and bias of every normalisation over the channel; weight and bias of a layer only where no
        normalisation follows it directly.
        """
        return scales_of(self, channels)

    def _size(self, name: str, alive: Tensor) -> Tensor:
        # A product over the dimensions: exact for booleans, and for probabilities the expectation if channels are
        # independent, which gates of different channels are.
        size = torch.ones((), dtype=alive.dtype, device=alive.device)
        for dim, length in enumerate(self.shapes[name]):
            use = next((use for use in self._uses_of.get(name, ()) if use.dim == dim), None)
            size = size * (length if use is None else _live(alive, use.channels))
        return size

    def parameter_count(self, alive: Callable[[Tensor], Tensor] | Tensor, names: Iterable[str] | None = None) -> Tensor:
        """Return elements of the parameters `names` (all that were traced, buffers too, by default), given who lives.

        `alive` is indexed by channel id (booleans, or probabilities: then the expectation for independent channels,
        differentiable), or a function of the ids that returns such values.
        """
        weights = self._alive(alive)
        return sum((self._size(name, weights) for name in (names or self.shapes)), weights.new_zeros(()))

    def macs(self, alive: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        """Return the multiply-adds of one sample in convolutions and linear layers, given who lives."""
        weights = self._alive(alive)
        start = weights.new_full((), self.other_macs)
        return sum((layer.positions * self._size(layer.weight, weights) for layer in self.layers), start)

    @on_cpu
    def _alive(self, alive: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        values = alive if isinstance(alive, Tensor) else alive(torch.arange(self.count + 1))
        if values.shape != (self.count + 1,):
            raise ThinningError(f"alive has shape {list(values.shape)}; one value per channel id is [{self.count + 1}]")
        return values if values.is_floating_point() else values.double()


def _live(alive: Tensor, channels: Tensor) -> Tensor:
    channels = channels.to(alive.device)
    return torch.where(channels > 0, alive[channels], 1).sum()


@on_cpu
def coverage_of(
    graph: ChannelGraph, name: str, indices: Iterable[int] | Tensor, dim: int = 0, whole_class: bool = False
) -> Slices:
    """See `ChannelGraph.coverage`."""
    chosen = torch.as_tensor(list(indices) if not isinstance(indices, Tensor) else indices.cpu(), dtype=torch.int64)
    use = graph.use(name, dim)
    if use is None:
        return {name: [(dim, chosen)]}
    if len(chosen) and not -len(use.labels) <= int(chosen.min()) <= int(chosen.max()) < len(use.labels):
        raise ThinningError(
            f"'{name}' has {len(use.labels)} channels in dimension {dim}; got indices {chosen.tolist()}"
        )
    # A label dies as a whole only if all of its indices are given: of a pixel shuffle's channel all r*r filters, say.
    given = torch.zeros(len(use.labels), dtype=torch.bool)
    given[chosen] = True
    several = use.labels.bincount(minlength=graph.count + 1) > 1
    whole = torch.zeros(graph.count + 1, dtype=torch.bool)
    whole[use.labels[given]] = True
    whole[use.labels[~given]] = False
    whole[0] = False
    # Beyond a layer's own chain only where no other weight makes the channel: the other term of a residual sum is not
    # zero by this layer's being so.
    everywhere = whole if whole_class else whole & (graph.makers <= 1) & ~(several & (graph.frozen >= 0))
    own = graph.followers(name, use.dim)
    slices: Slices = {}
    for other in graph.uses:
        wanted = everywhere[other.labels] if other.role in ("out", "scale", "shift") else None
        if (other.name, other.dim) in own:
            wanted = whole[other.labels]
            if torch.equal(other.labels, use.labels):
                wanted = wanted | given
        if wanted is not None and (found := wanted.nonzero().flatten()).numel():
            slices.setdefault(other.name, []).append((other.dim, found))
    return slices


def _own(graph: ChannelGraph, name: str, dim: int) -> set[tuple[str, int]]:
    own = {(name, dim)}
    for layer in graph.layers:
        if layer.weight == name and layer.out_dim == dim:
            own.update(layer.chain)
            if layer.bias is not None:
                own.add((layer.bias, 0))
    return own


@on_cpu
def scales_of(graph: ChannelGraph, channels: Iterable[int] | Tensor) -> list[Scale]:
    """See `ChannelGraph.scales`."""
    wanted = torch.zeros(graph.count + 1, dtype=torch.bool)
    wanted[torch.as_tensor(list(channels) if not isinstance(channels, Tensor) else channels.cpu())] = True
    wanted[0] = False
    plain = {key for layer in graph.layers if not layer.normalized for key in _made_by(layer)}
    scales = []
    for use in graph.uses:
        if use.role in ("scale", "shift") or (use.name, use.dim) in plain:
            scales += _scales(use, wanted)
    return scales


def _made_by(layer: Layer) -> list[tuple[str, int]]:
    return [(layer.weight, layer.out_dim)] + ([(layer.bias, 0)] if layer.bias is not None else [])


def _scales(use: Use, wanted: Tensor) -> list[Scale]:
    found = wanted[use.channels].nonzero().flatten().tolist()
    return [Scale(use.name, use.dim, index, int(use.channels[index])) for index in found]
