"""What a ranking came to: its outcome for each weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from potstill.thinning import ChannelGraph

from ..parts.structures import Group
from .base import View
from .indivisible import Ties, sizes
from .outcome import Outcome


@dataclass(frozen=True)
class Ranking:
    """What a ranking came to.

    Attributes:
        masks: all masks, by parameter, those of what follows included.
        keeps: weight -> which of its structures stay (bool).
        asked: weight -> how many were to be hidden; left out where chance decides.
        ties: the weights, those together over which one ranking decided.
        limits: weight -> what kept the count low, beside sets that do not fit.
    """

    masks: dict[str, Tensor]
    keeps: Mapping[str, Tensor]
    asked: Mapping[str, int]
    ties: Iterable[Ties]
    limits: Mapping[str, str] = field(default_factory=dict)


def outcomes_of(ranking: Ranking, groups: Mapping[str, Group], view: View) -> dict[str, Outcome]:
    """Return the outcome for each weight of a ranking."""
    return {
        name: _outcome(name, ranking, tie, _left(name, groups[name], view))
        for tie in ranking.ties
        for name in tie.sets
        if name in ranking.keeps
    }


def _left(name: str, group: Group, view: View) -> str:
    """Return why it is not known what follows the filters of a weight.

    Nothing where it is, and without a channel graph.
    """
    graph = view.graph() if group.output else None
    if graph is None or isinstance(view.model.get_submodule(name.rpartition(".")[0]), (nn.Embedding, nn.EmbeddingBag)):
        return ""
    use = graph.use(name, group.kept[0])
    if use is not None and (use.role != "vector" or len(graph.coverage(name, range(len(use.labels)), use.dim)) > 1):
        return ""
    return reason(graph, int(use.labels[0]) if use is not None else 0)


def _outcome(name: str, ranking: Ranking, tie: Ties, left: str) -> Outcome:
    keep = ranking.keeps[name]
    found = {1: len(keep)} if tie.single else sizes(tie.sets[name])
    hidden = len(keep) - int(keep.sum())
    asked = ranking.asked.get(name, hidden)
    why = (ranking.limits.get(name) or _misfit(name, tie, found)) if hidden < asked else ""
    return Outcome(len(keep), asked, hidden, found, left if hidden else "", why)


def _misfit(name: str, tie: Ties, found: Mapping[int, int]) -> str:
    """Return why sets did not fill the count."""
    mates = [other for other in tie.sets if other != name]
    text = f"they live or die in sets of {', '.join(str(size) for size in sorted(found))}"
    return text + (f", together with those of {', '.join(mates)}" if mates else "")


def reason(graph: ChannelGraph, label: int) -> str:
    """Return why a channel cannot be removed."""
    frozen = int(graph.frozen[label])
    return graph.reasons[frozen] if label and frozen >= 0 else "its outputs are no channels that can be removed"
