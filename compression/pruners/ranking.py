"""Score x group x rate: the parts that all pruners of structures share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph

from ..declare.cross_checks import Complaint, Shapes
from ..declare.names import resolve
from ..parts.selection import Rounding, Share, count, keep_highest, keep_whole_sets
from ..parts.sharded_structures import any_in, spread
from ..parts.sparsity_rates import Rate
from ..parts.structures import FILTERS, Group, oriented
from ..steps import Window
from . import ranking_checks
from .base import Pruner, View
from .coupled_channels import rank_coupled
from .cover_channel import NEEDS_GRAPH, cover
from .indivisible import Ties, ties
from .outcome import Outcome
from .ranking_result import Ranking, outcomes_of

logger = logging.getLogger(__name__)
Dependency = Literal["Leader"] | None
Keeps = dict[str, Tensor]
Scores = Callable[[str, Group, View], Tensor | None]


class RankedStructurePruner(Pruner):
    """Hides the lowest-scored structures of each listed weight, by exact count.

    A filter is masked together with its bias and with the weight and bias of the normalisation behind it, so that its
    channel is dead and thinning removes it exactly. Filters of the same channel (see `indivisible`) are ranked by the
    mean of their scores and hidden as a whole, as many sets as fit into the count, and never more. With
    `group_dependency: Leader` the first listed weight decides for all; with `group_type: Coupled` channels that belong
    together are ranked as one, whatever is listed of them.

    Subclasses are dataclasses with these fields, some of their own, a `rate` and a `score`.
    """

    weights: Any
    group_type: Any
    group_dependency: Any = None
    kwargs: Any = None
    group_size: int = 1
    rounding_fn: Rounding = "floor"

    counts = True
    """Whether a number of structures is asked; else chance decides over each."""

    @property
    def rate(self) -> Rate:
        """The sparsity by the window's progress."""
        raise NotImplementedError

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """Return a score for each structure of a weight, the lowest to go; None where there is nothing to go by yet."""
        raise NotImplementedError

    def level(self, name: str, view: View) -> float:
        """Return the sparsity of a weight at this step."""
        return self.rate(view.progress)

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Return what a schedule's arguments get wrong together or for the tensors that they name."""
        return ranking_checks.problems(args, shapes)

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`.

        Raises:
            ValueError: a name fits nothing, there is no such group, or a weight cannot be split so.
        """
        names, group = resolve(self.weights, model), self._group()
        args = {"weights": names, "group_type": self.group_type, "kwargs": self.kwargs}
        found = [problem for _, problem in ranking_checks.splits(args, Shapes(model))]
        if found:
            raise ValueError("; ".join(found))
        self._groups = {name: oriented(group, name, model) for name in names}
        self._outcomes: Mapping[str, Outcome] = {}
        self._ties: tuple[ChannelGraph | None, list[Ties]] | None = None

    def prepare(self, window: Window, graph: Callable[[], ChannelGraph | None]) -> None:
        """Check that what belongs together can be known.

        Raises:
            ValueError: the groups are coupled channels, and the model cannot be traced.
        """
        if self.group_type == "Coupled" and graph() is None:
            raise ValueError(f"group_type Coupled {NEEDS_GRAPH}")

    def structures(self) -> Mapping[str, Group]:
        """Return how each weight splits."""
        return self._groups

    def targets(self) -> Iterable[str]:
        """Return the listed weights."""
        return self._groups

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Return what the last ranking asked and did, by weight."""
        return self._outcomes

    def masks(self, view: View) -> dict[str, Tensor]:
        """Return the masks by parameter, those of biases and norms that follow pruned filters included."""
        ranking = self._ranking(view, self.score)
        self._outcomes = outcomes_of(ranking, self._groups, view)
        return ranking.masks

    def expected(self, view: View) -> Mapping[str, Outcome]:
        """Return what `masks(view)` would ask and do, found without scores; nothing changes."""
        return outcomes_of(self._ranking(view, _all_equal), self._groups, view)

    def at_last_level(self, view: View) -> bool:
        """Return whether later steps of the window ask for no more."""
        return self.rate(view.progress) == self.rate(1.0)

    def settle(self, view: View) -> dict[str, Tensor]:
        """Return the masks of biases and norms that follow, where soft masks of filters have become permanent."""
        masks = {name: mask != 0 for name, mask in view.masks.items() if name in self._groups}
        keeps = {name: any_in(self._groups[name], mask) for name, mask in masks.items()}
        return cover(masks, keeps, self._groups, view) if self._group().output else {}

    def _ranking(self, view: View, score: Scores) -> Ranking:
        if self.group_type == "Coupled":
            return self._coupled(view, score)
        keeps = self._keeps(view, score)
        masks = {name: spread(self._groups[name], keep, view.weights[name]) for name, keep in keeps.items()}
        if self._group().output:
            masks = cover(masks, keeps, self._groups, view)
        asked = {name: self._asked(name, len(keep), view) for name, keep in keeps.items() if self.counts}
        return Ranking(masks, keeps, asked, self._tied(view))

    def _group(self) -> Group:
        return ranking_checks.split_of(self.group_type, self.kwargs)

    def _asked(self, name: str, structures: int, view: View) -> int:
        """Return how many structures to hide; led weights follow the first."""
        decider = next(iter(self._groups)) if self.group_dependency == "Leader" else name
        return count(self.level(decider, view), structures, self.rounding_fn, self.group_size)

    def _tied(self, view: View) -> list[Ties]:
        """Return the weights, those together over which one ranking decides, found once for a channel graph."""
        counts = {name: group.count(view.weights[name].shape) for name, group in self._groups.items()}
        led = self.group_dependency == "Leader"
        leader, wanted = next(iter(counts.items()))
        for name, number in counts.items() if led else ():
            ranking_checks.check_same(leader, wanted, name, number)
        graph = view.graph() if self._group().output else None
        if self._ties is None or self._ties[0] is not graph:  # another graph: channels were removed since
            places = {name: group.kept[0] if group.kept else 0 for name, group in self._groups.items()}
            self._ties = graph, ties(counts, places, graph, led)
        return self._ties[1]

    def _keeps(self, view: View, score: Scores) -> Keeps:
        keeps: Keeps = {}
        for tie in self._tied(view):
            # With a leader its scores alone decide, whatever the others score.
            names = list(tie.sets)[: 1 if self.group_dependency == "Leader" else None]
            kept = self._keep_singles(names[0], view, score) if tie.single else self._keep_sets(tie, names, view, score)
            if kept is None:
                for name in names:
                    logger.warning("%s: nothing to rank its structures by yet, so none is pruned now", name)
            elif self.group_dependency == "Leader":
                keeps = dict.fromkeys(self._groups, kept[names[0]])
            else:
                keeps.update(kept)
        return {name: keeps[name] for name in self._groups if name in keeps}

    def _keep_singles(self, name: str, view: View, score: Scores) -> Keeps | None:
        """Return which structures of a weight stay (bool), each for itself.

        None where there is nothing to go by yet.
        """
        group = self._groups[name]
        scores = score(name, group, view)
        if scores is None:
            return None
        living, number = self._living(name, view), self._asked(name, len(scores), view)
        if self.group_size == 1:
            return {name: keep_highest(scores, number, living)}
        living = None if living is None else living.view(-1, self.group_size).any(1)
        # A run lives if one of its structures does, and scores what they score together.
        runs = scores.view(-1, self.group_size).sum(1)
        keep = keep_highest(runs, number // self.group_size, living)
        return {name: keep.repeat_interleave(self.group_size)}

    def _keep_sets(self, tie: Ties, names: list[str], view: View, score: Scores) -> Keeps | None:
        """Return which filters stay (bool) of weights whose filters live or die in sets.

        None where there are no scores.
        """
        tie = tie.in_runs(self.group_size)
        found = {name: score(name, self._groups[name], view) for name in names}
        known = {name: values for name, values in found.items() if values is not None}
        if not known:
            return None
        asked = {name: self._asked(name, len(tie.sets[name]), view) for name in names}
        shares = [Share(tie.sets[name], asked[name], self._living(name, view)) for name in names]
        kept = keep_whole_sets(tie.mean(known), shares)
        return {name: keep.to(view.weights[name].device) for name, keep in zip(names, kept, strict=True)}

    def _living(self, name: str, view: View) -> Tensor | None:
        alive = view.alive(name)
        return None if alive is None else any_in(self._groups[name], alive)

    def _coupled(self, view: View, score: Scores) -> Ranking:
        def scores(name: str, dim: int) -> Tensor:
            values = score(name, Group((dim,), FILTERS.min_rank), view)
            return torch.zeros(view.weights[name].shape[dim], device="cpu") if values is None else values

        level = self.level(next(iter(self._groups)), view)
        places = {name: group.kept[0] for name, group in self._groups.items()}
        asked = {name: self._asked(name, view.weights[name].shape[dim], view) for name, dim in places.items()}
        return rank_coupled(asked, places, scores, lambda total: count(level, total, self.rounding_fn), view)


def _all_equal(name: str, group: Group, view: View) -> Tensor:
    """Return the same score for each structure."""
    return torch.zeros(group.count(view.weights[name].shape), device="cpu")
