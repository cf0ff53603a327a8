"""Which filters live or die as one: indices of the same channel, in one weight or in several that are listed together.

The same channel has several filters of one weight where something behind them keeps parts equal (a grouped convolution
or GroupNorm, attention's heads, a pixel shuffle, a gated unit, an LSTM's gates). A pointwise convolution and the
depthwise one behind it have filters of the same channels. Where a channel cannot be removed anyway, or another layer
that is not asked makes it too (a residual sum), its filters are no set: each counts for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from potstill.thinning import ChannelGraph, on_cpu
from potstill.thinning.label_sets import components

from ..parts.scores import mean_by_number


@dataclass(frozen=True)
class Ties:
    """Weights over whose filters one ranking decides.

    Attributes:
        sets: weight -> the number of the set of each of its filters (int64, on the CPU); numbers run from 0, in the
            order in which sets occur.
        single: whether each filter of each weight is alone in its set (but for those of led weights).
    """

    sets: Mapping[str, Tensor]
    single: bool

    @property
    def count(self) -> int:
        """Return how many sets there are."""
        return 1 + max(int(sets.max()) for sets in self.sets.values())

    def mean(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Return the score of each set (float64, on the CPU).

        The mean over the filters that have one, inf where none has.
        """
        return mean_by_number(self.count, ((self.sets[name], values) for name, values in scores.items()))

    def in_runs(self, length: int) -> Ties:
        """Return the same weights, so many consecutive filters of each united."""
        if length == 1:
            return self
        pairs = [(sets, sets[torch.arange(len(sets)) // length * length]) for sets in self.sets.values()]
        root = components(self.count, pairs)
        return _numbered({name: root[sets] for name, sets in self.sets.items()}, False)


def alone(name: str, number: int) -> Ties:
    """Return a weight each of whose structures is for itself."""
    return Ties({name: torch.arange(number, device="cpu")}, single=True)


def sizes(sets: Tensor) -> dict[int, int]:
    """Return size -> how many of the numbered sets have it."""
    found, counts = sets.unique(return_counts=True)[1].unique(return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class _Filters:
    """The filters of a weight as nodes of a graph of ties, and the label of each (0: no channel)."""

    name: str
    dim: int
    nodes: Tensor
    labels: Tensor


Pair = tuple[Tensor, Tensor]


@on_cpu
def ties(counts: Mapping[str, int], places: Mapping[str, int], graph: ChannelGraph | None, led: bool) -> list[Ties]:
    """Find the sets of filters of listed weights.

    Args:
        counts: weight -> how many filters it has.
        places: weight -> the dimension that counts them.
        graph: the channel graph; without one each filter is alone.
        led: whether the first weight decides for all, index by index.

    Returns:
        The weights, those together over which one ranking decides.
    """
    if graph is None and not led:
        return [alone(name, number) for name, number in counts.items()]
    weights, begin = [], 0
    for name, number in counts.items():
        use = graph.use(name, places[name]) if graph is not None else None
        nodes = torch.arange(begin, begin + number)
        weights.append(_Filters(name, places[name], nodes, torch.zeros_like(nodes) if use is None else use.labels))
        begin += number
    # A graph whose nodes are filters; its components are the sets. Led weights follow the first one index by index.
    pairs = [(weights[0].nodes, other.nodes) for other in weights[1:]] if led else []
    hubs = 0
    if graph is not None:
        # Each kind of tie has hubs of its own, a node a label: filters of one label meet there, and two kinds do not
        # mix.
        for tied in (_same_channels(weights, graph, led), *_along_the_chain(weights, graph)):
            pairs += [(nodes, begin + hubs + labels) for nodes, labels in tied]
            hubs += graph.count + 1
    root = components(begin + hubs, pairs)
    return _together({weight.name: root[weight.nodes] for weight in weights}, led)


def _same_channels(weights: list[_Filters], graph: ChannelGraph, led: bool) -> list[Pair]:
    """Return filters (nodes, labels) of channels that can be removed, or of which each weight has one filter."""
    others = graph.makers
    if led:
        others = others - graph.made_by({graph.aliases.get(weight.name, weight.name) for weight in weights})
    # A channel that several weights make (a residual sum) does not die with the filters of one, so that these are no
    # set. Led weights are hidden together: of their channels only makers outside of the list count.
    shared = (others > 0) & (graph.makers > 1)
    fixed = shared | (graph.frozen >= 0)
    whole = torch.zeros(graph.count + 1, dtype=torch.bool)
    for weight in weights:
        # Filters of one weight whose channel stays anyway need not go together either.
        divisible = fixed & (weight.labels.bincount(minlength=graph.count + 1) > 1)
        whole[weight.labels[~(divisible | shared)[weight.labels]]] = True
    whole[0] = False
    return [(weight.nodes[on], weight.labels[on]) for weight in weights if (on := whole[weight.labels]).any()]


def _along_the_chain(weights: list[_Filters], graph: ChannelGraph) -> Iterable[list[Pair]]:
    """Return filters of a layer and of a listed depthwise layer right behind it, which are hidden along with them."""
    chains = {weight.name: graph.followers(weight.name, weight.dim) for weight in weights}
    for one, other in permutations(weights, 2):
        if (graph.aliases.get(other.name, other.name), other.dim) not in chains[one.name]:
            continue
        if torch.equal(one.labels, other.labels):
            places = torch.arange(len(one.labels))
            yield [(one.nodes, places), (other.nodes, places)]
        else:
            yield [(weight.nodes[weight.labels > 0], weight.labels[weight.labels > 0]) for weight in (one, other)]


def _together(roots: Mapping[str, Tensor], led: bool) -> list[Ties]:
    """Return weights that share a set, together; the sets of each numbered anew."""
    numbers = {name: set(root.tolist()) for name, root in roots.items()}
    clusters: list[list[str]] = [] if not led else [list(roots)]
    for name in () if led else roots:
        meeting = [known for known in clusters if any(numbers[name] & numbers[other] for other in known)]
        clusters = [known for known in clusters if known not in meeting]
        clusters.append([*(other for known in meeting for other in known), name])
    return [_numbered({name: roots[name] for name in cluster}, led) for cluster in clusters]


def _numbered(roots: Mapping[str, Tensor], led: bool) -> Ties:
    numbers = torch.cat(list(roots.values())).unique(return_inverse=True)[1]
    sets = dict(zip(roots, numbers.split([len(root) for root in roots.values()]), strict=True))
    first = next(iter(sets.values()))
    alone = len(first.unique()) == len(first)
    return Ties(sets, alone and (led or len(sets) == 1))
