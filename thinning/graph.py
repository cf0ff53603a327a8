"""What tracing finds: which slices of which parameters are the same channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .classes import class_of_label, members
from .coverage import coverage_of, scales_of
from .errors import ThinningError
from .graph_data import AttributeUse, ChannelClass, GraphData, Layer, Role, Scale, Slices, Use
from .places import on_cpu

__all__ = ["AttributeUse", "ChannelClass", "ChannelGraph", "Layer", "Role", "Scale", "Slices", "Use"]


@dataclass(frozen=True)
class ChannelGraph(GraphData):
    """Which slices of which parameters are the same channel; made by `trace`.

    `frozen[label]` and `inexact[label]` are indices into `reasons`, -1 for none; label 0 is no channel.
    """

    @on_cpu
    def channels_of(self, name: str, dim: int = 0) -> Tensor:
        """The channel ids (int64) of the indices of dimension `dim` of parameter `name`, 0 for a frozen one."""
        use = self.use(name, dim)
        return use.channels if use else torch.zeros(self.shapes[self.aliases.get(name, name)][dim], dtype=torch.int64)

    def classes(self) -> list[ChannelClass]:
        """All channels, those with the same uses and the same status together."""
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
        """Every slice that has to be zero so that the channels of `name[indices]` are dead.

        Parameter -> [(dim, indices)]: the filters themselves, their bias, the weight and bias of the normalisations
        and the depthwise filters that follow. A channel that several layers produce (a residual sum) is covered only
        along this layer's own chain, unless `whole_class`.
        """
        return coverage_of(self, name, indices, dim, whole_class)

    def scales(self, channels: Iterable[int] | Tensor) -> list[Scale]:
        """The slices that gates on `channels` multiply, so that a gate of 0 makes each of its channel's values 0.

        Weight and bias of every normalisation over the channel; weight and bias of a layer only where no
        normalisation follows it directly.
        """
        return scales_of(self, channels)

    def _size(self, name: str, alive: Tensor) -> Tensor:
        size = torch.ones((), dtype=alive.dtype, device=alive.device)
        for dim, length in enumerate(self.shapes[name]):
            use = next((use for use in self._uses_of.get(name, ()) if use.dim == dim), None)
            size = size * (length if use is None else _live(alive, use.channels))
        return size

    def parameter_count(self, alive: Callable[[Tensor], Tensor] | Tensor, names: Iterable[str] | None = None) -> Tensor:
        """Elements of the parameters `names` (all that were traced, buffers too, by default), given who lives.

        `alive` is indexed by channel id (booleans, or probabilities: then the expectation for independent channels,
        differentiable), or a function of the ids that returns such values.
        """
        weights = self._alive(alive)
        return sum((self._size(name, weights) for name in (names or self.shapes)), weights.new_zeros(()))

    def macs(self, alive: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        """Multiply-adds of one sample in convolutions and linear layers, given who lives (see `parameter_count`)."""
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
