"""Which channels of a network have gates, and what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph, on_cpu

from ...processes.shards import fill, is_sharded, part, with_part
from .scale_parameters import Layout


class GatedChannels:
    """One gate on each output channel of the listed weights; a channel that several of them make has one gate.

    Attributes:
        layers: for each weight, the gate of each of its channels.
        layout: what the gates multiply.
    """

    @on_cpu
    def __init__(self, graph: ChannelGraph, names: Sequence[str]) -> None:
        """Find the channels.

        Raises:
            ValueError: the channels of a weight cannot be removed; says which and why.
        """
        self._graph = graph
        found: dict[int, int] = {}
        self.layers: dict[str, Tensor] = {}
        for name in names:
            # Numbered as they are met: a channel of two layers (a residual sum) keeps the number of the first.
            ids = graph.channels_of(name, 0).tolist()
            if 0 in ids:
                raise ValueError(f"{name} cannot have gates: {_why(graph, name)}")
            self.layers[name] = torch.tensor([found.setdefault(channel, len(found)) for channel in ids])
        self.layout = Layout.of(graph, torch.tensor(list(found)))

    def __len__(self) -> int:
        """Return the number of gates."""
        return self.layout.count

    def together(self) -> list[str]:
        """Return, for each layer in which a gate has several channels, how many."""
        most = {name: int(gates.bincount().max()) for name, gates in self.layers.items()}
        return [f"channels of {name} go {number} at a time" for name, number in most.items() if number > 1]

    @on_cpu
    def matching(self, before: GatedChannels, kept: Mapping[str, Tensor]) -> Tensor:
        """Return (gates,): the gate that each had before thinning.

        Args:
            before: the channels with gates before.
            kept: weight -> indices of the output channels that it kept, where it lost some.
        """
        former = torch.zeros(len(self), dtype=torch.int64)
        for name, gates in self.layers.items():
            old = before.layers[name]
            former[gates] = old[kept[name].cpu()] if name in kept else old
        return former

    def factors(self, values: Tensor) -> dict[str, Tensor]:
        """Return what each scaled parameter is multiplied by, of a shape that broadcasts, given the gates' values."""
        layout = self.layout
        flat = torch.cat([values, values.new_ones(1)])[layout.index.to(values.device)]
        keys = [*((name, 0) for name in layout.vectors), *layout.tensors]
        factors: dict[str, Tensor] = {}
        for (name, dim), factor_part in zip(keys, flat.split(list(layout.sizes)), strict=True):
            rank = len(self._graph.shapes[name])
            factor = factor_part.view([-1 if axis == dim else 1 for axis in range(rank)])
            factors[name] = factors[name] * factor if name in factors else factor
        return factors

    @on_cpu
    def masks(self, opened: Tensor, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return masks of all that makes the channels whose gates are shut, by parameter; placed as `weights` are."""
        masks: dict[str, Tensor] = {}
        for parameter, dim, indices in self.makers(opened):
            if parameter not in masks:
                masks[parameter] = self._ones(parameter, (weights or {}).get(parameter))
            fill(masks[parameter], dim, indices, 0)
        return masks

    @on_cpu
    def makers(self, opened: Tensor) -> Iterator[tuple[str, int, Tensor]]:
        """Yield all slices that make the channels whose gates are shut: parameter, dimension and indices."""
        opened = opened.cpu()
        for name, gates in self.layers.items():
            # Whole classes: a closed channel has to be zero in all that makes it, or thinning could not remove it.
            shut = (~opened[gates]).nonzero().flatten()
            for parameter, slices in self._graph.coverage(name, shut, whole_class=True).items():
                for dim, indices in slices:
                    yield parameter, dim, indices

    def _ones(self, name: str, weight: Tensor | None) -> Tensor:
        if weight is None or not is_sharded(weight):
            return torch.ones(self._graph.shapes[name])
        return with_part(weight, torch.ones_like(part(weight)))


def _why(graph: ChannelGraph, name: str) -> str:
    use = graph.use(name, 0)
    if use is None:
        return "its outputs are no channels that can be removed"
    labels = use.labels[use.channels == 0]
    reason = int(graph.frozen[labels].max())
    count = f"{len(labels)} of its {len(use.channels)} output channels cannot be removed"
    return count + (f" ({graph.reasons[reason]})" if reason >= 0 else "")
