"""Score x group x rate: the parts that all pruners of structures share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..groups import FILTERS, Group, find_group, kwargs_problem, oriented, shape_problem
from ..names import resolve
from ..rates import Rate, falling
from ..selection import Rounding, count, keep_highest
from .base import Pruner, View
from .coupled import coupled_masks
from .coupling import cover

logger = logging.getLogger(__name__)
Dependency = Literal["Leader"] | None


class RankedStructurePruner(Pruner):
    """Hides the lowest-scored structures of each listed weight, by exact count.

    A filter is masked together with its bias and with the weight and bias of the normalisation behind it, so that its
    channel is dead and thinning removes it exactly. With `group_dependency: Leader` the first listed weight decides for
    all; with `group_type: Coupled` channels that belong together are ranked as one, whatever is listed of them.

    Subclasses are dataclasses with these fields, some of their own, a `rate` and a `score`.
    """

    weights: Any
    group_type: Any
    group_dependency: Any = None
    kwargs: Any = None
    group_size: int = 1
    rounding_fn: Rounding = "floor"

    @property
    def rate(self) -> Rate:
        """The sparsity by the window's progress."""
        raise NotImplementedError

    def score(self, name: str, group: Group, view: View) -> Tensor | None:
        """A score for each structure of a weight, the lowest to go; None where there is nothing to go by yet."""
        raise NotImplementedError

    def level(self, name: str, view: View) -> float:
        """The sparsity of a weight at this step."""
        return self.rate(view.progress)

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[tuple[str, str]]:
        """What a schedule's arguments get wrong together or for the tensors that they name."""
        if "final_sparsity" in args:
            yield from falling(args)
        group_type, kwargs = args["group_type"], args.get("kwargs")
        problem = kwargs_problem(group_type, kwargs)
        if problem:
            yield "kwargs" if kwargs else "group_type", problem
            return
        group = _split(group_type, kwargs)
        for name in args["weights"]:
            problem = shape_problem(group, group_type, name, shapes[name])
            if problem:
                yield "group_type", problem
            elif (structures := group.count(shapes[name])) % args.get("group_size", 1):
                yield "group_size", f"{args['group_size']} does not divide {name}'s {structures} structures"
        if args.get("group_dependency") == "Leader":
            yield from _unequal(group, args["weights"], shapes)

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`.

        Raises:
            ValueError: a name fits nothing, there is no such group, or a weight cannot be split so.
        """
        for name in resolve(self.weights, model):
            problem = shape_problem(self._group(), self.group_type, name, model.get_parameter(name).shape)
            if problem:
                raise ValueError(problem)
        self._groups = {name: oriented(self._group(), name, model) for name in resolve(self.weights, model)}

    def targets(self) -> Iterable[str]:
        """The listed weights."""
        return self._groups

    def masks(self, view: View) -> dict[str, Tensor]:
        """The masks by parameter, those of biases and norms that follow pruned filters included."""
        if self.group_type == "Coupled":
            return self._coupled(view)
        keeps = self._keeps(view)
        shapes = {name: view.weights[name].shape for name in keeps}
        masks = {name: self._groups[name].expand(keep, shapes[name]) for name, keep in keeps.items()}
        return cover(masks, keeps, self._groups, view) if self._group().output else masks

    def settle(self, view: View) -> dict[str, Tensor]:
        """The masks of biases and norms that follow, where soft masks of filters have become permanent."""
        masks = {name: mask != 0 for name, mask in view.masks.items() if name in self._groups}
        keeps = {name: self._groups[name].split(mask).any(1) for name, mask in masks.items()}
        return cover(masks, keeps, self._groups, view) if self._group().output else {}

    def _group(self) -> Group:
        return _split(self.group_type, self.kwargs)

    def _keeps(self, view: View) -> dict[str, Tensor]:
        leader = next(iter(self._groups))
        names = [leader] if self.group_dependency == "Leader" else list(self._groups)
        keeps = {}
        for name in names:
            keep = self.keep(name, view)
            if keep is None:
                logger.warning("%s: nothing to rank its structures by yet, so none is pruned now", name)
            else:
                keeps[name] = keep
        if self.group_dependency == "Leader" and keeps:
            for name, group in self._groups.items():
                _check_same(leader, len(keeps[leader]), name, group.count(view.weights[name].shape))
            return dict.fromkeys(self._groups, keeps[leader])
        return keeps

    def keep(self, name: str, view: View) -> Tensor | None:
        """Which structures of a weight stay (bool); None where there is nothing to go by yet."""
        group, alive = self._groups[name], view.alive(name)
        scores = self.score(name, group, view)
        if scores is None:
            return None
        living = None if alive is None else group.split(alive).any(1)
        number = count(self.level(name, view), len(scores), self.rounding_fn, self.group_size)
        if self.group_size == 1:
            return keep_highest(scores, number, living)
        living = None if living is None else living.view(-1, self.group_size).any(1)
        runs = scores.view(-1, self.group_size).sum(1)
        return keep_highest(runs, number // self.group_size, living).repeat_interleave(self.group_size)

    def _coupled(self, view: View) -> dict[str, Tensor]:
        def score(name: str, dim: int) -> Tensor:
            scores = self.score(name, Group((dim,), FILTERS.min_rank), view)
            return torch.zeros(view.weights[name].shape[dim]) if scores is None else scores

        level = self.level(next(iter(self._groups)), view)
        places = {name: group.kept[0] for name, group in self._groups.items()}
        return coupled_masks(places, places, score, lambda total: count(level, total, self.rounding_fn), view)


def _split(group_type: str, kwargs: Mapping[str, Any] | None) -> Group:
    """How weights split; coupled channels are made of filters."""
    return FILTERS if group_type == "Coupled" and not kwargs else find_group(group_type, kwargs)


def _unequal(group: Group, names: Iterable[str], shapes: Mapping[str, torch.Size]) -> Iterable[tuple[str, str]]:
    leader, *others = names
    for name in others:
        try:
            _check_same(leader, group.count(shapes[leader]), name, group.count(shapes[name]))
        except ValueError as error:
            yield f"weights.{name}", str(error)


def _check_same(leader: str, wanted: int, name: str, found: int) -> None:
    if found != wanted:
        raise ValueError(f"Leader {leader} decides over {wanted} structures, but {name} has {found}")
