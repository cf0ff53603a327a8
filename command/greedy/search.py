"""One step of greedy pruning, for any network: who may go, and what is left when they went.

Distiller's `--greedy`, after Abbasi-Asl and Yu 2017 (greedy filter pruning) and Yang et al. 2018 (NetAdapt). A
candidate is a set of coupled channels: what a residual sum ties together becomes smaller in all layers that make it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from potstill.compression.one_shot import score_channels, zeroed
from potstill.thinning import ChannelClass, ChannelGraph, Recipe, thin, trace


@dataclass(frozen=True)
class Candidate:
    """Channels that may go together.

    Attributes:
        name: the weights that make them.
        channels: their labels in the channel graph, those of smallest L1 norm first.
    """

    name: str
    channels: Tensor = field(repr=False)


@dataclass(frozen=True)
class Tried:
    """What became of a network without a candidate, after fine-tuning."""

    name: str
    removed: int
    top1: float
    top5: float
    loss: float

    @property
    def rank(self) -> tuple[float, float, float]:
        """Return what decides: top1, then top5, then the loss."""
        return self.top1, self.top5, -self.loss


def candidates(model: nn.Module, example: Tensor, step: float) -> tuple[ChannelGraph, list[Candidate]]:
    """Return the channel graph, and for each set of coupled channels the share `step` of it that matters least.

    At least one channel goes and one stays; sets of one channel, and those that cannot be removed, are left out.
    """
    graph = trace(model, example)
    ranks = {name: parameter.dim() for name, parameter in model.named_parameters()}
    found: list[Candidate] = []
    if all(layer.depthwise for layer in graph.layers):
        return graph, found
    scores = score_channels(model, graph, "l1")
    for group in graph.classes():
        makers = _makers(group, ranks)
        if group.status == "removable" and group.size > 1 and makers and scores[group.channels].isfinite().all():
            number = min(max(1, int(step * group.size)), group.size - 1)
            order = scores[group.channels].argsort(stable=True)
            found.append(Candidate(", ".join(makers), group.channels[order[:number]]))
    return graph, found


def _makers(group: ChannelClass, ranks: dict[str, int]) -> list[str]:
    return list(dict.fromkeys(name for name, _, role in group.uses if role == "out" and ranks.get(name, 0) > 1))


def without(
    model: nn.Module, graph: ChannelGraph, candidate: Candidate, example: Tensor, masks: dict[str, Tensor] | None = None
) -> tuple[nn.Module, Recipe]:
    """Return a copy of the network without the candidate's channels, and the recipe; masks by name are sliced along.

    Raises:
        ThinningError: the copy computes something else than the network with zeros for them.
    """
    smaller = copy.deepcopy(model)
    with zeroed(smaller, graph, candidate.channels):
        recipe = thin(smaller, example, masks)
    return smaller, recipe


Try = Callable[[Candidate], Tried]


def best_of(found: Sequence[Candidate], known: Iterable[Tried], attempt: Try) -> Tried:
    """Return the best of all candidates, one at least; those known from before an interruption are not tried again."""
    before = {tried.name: tried for tried in known}
    return max((before.get(one.name) or attempt(one) for one in found), key=lambda tried: tried.rank)
