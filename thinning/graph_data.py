"""The data of a channel graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from .errors import ThinningError

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
        """The number of channels (each may be several indices of a parameter)."""
        return len(self.channels)


@dataclass(frozen=True)
class AttributeUse:
    """The integer attribute `module.name` (or its element `index`) counts the kept ones among `labels`."""

    module: str
    name: str
    index: int | None
    labels: Tensor = field(repr=False)


@dataclass(frozen=True)
class GraphData:
    """The fields of a channel graph (see `graph.ChannelGraph`) and looking a use up."""

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
        """The number of labels; channel ids run from 1 to `count`, so `torch.ones(graph.count + 1)` is "all alive"."""
        return len(self.frozen) - 1

    def use(self, name: str, dim: int = 0) -> Use | None:
        """The use of dimension `dim` of parameter `name`; None where its indices are no channels."""
        name = self.aliases.get(name, name)
        if name not in self.shapes:
            raise ThinningError(f"'{name}' is no parameter or buffer of the traced model")
        if not -len(self.shapes[name]) <= dim < max(1, len(self.shapes[name])):
            raise ThinningError(f"'{name}' has shape {list(self.shapes[name])}, so no dimension {dim}")
        dim %= max(1, len(self.shapes[name]))
        return next((use for use in self._uses_of.get(name, ()) if use.dim == dim), None)
