"""Score x group x rate: the parts that all pruners of structures share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph

from ..declare.cross_checks import Complaint, Shapes, Withheld, apart, first
from ..declare.names import resolve
from ..parts.selection import Rounding, count, keep_highest
from ..parts.sparsity_rates import Rate, falling
from ..parts.structures import FILTERS, Group, find_group, kwargs_problem, oriented, placed, shape_problem
from ..parts.weight_norm import direction_problem
from ..steps import Window
from .base import Pruner, View
from .coupled_channels import coupled_masks
from .cover_channel import NEEDS_GRAPH, cover

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
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """What a schedule's arguments get wrong together or for the tensors that they name."""
        return apart(
            falling(args) if "final_sparsity" in args else (),
            _kwargs(args),
            _splits(args, shapes),
            _sizes(args, shapes) if "group_size" in args else (),
            _unequal(args, shapes),
            _of_coupled(args),
        )

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights`.

        Raises:
            ValueError: a name fits nothing, there is no such group, or a weight cannot be split so.
        """
        names, group = resolve(self.weights, model), self._group()
        args = {"weights": names, "group_type": self.group_type, "kwargs": self.kwargs}
        found = [problem for _, problem in _splits(args, Shapes(model))]
        if found:
            raise ValueError("; ".join(found))
        self._groups = {name: oriented(group, name, model) for name in names}

    def prepare(self, window: Window, graph: Callable[[], ChannelGraph | None]) -> None:
        """Check that what belongs together can be known.

        Raises:
            ValueError: the groups are coupled channels, and the model cannot be traced.
        """
        if self.group_type == "Coupled" and graph() is None:
            raise ValueError(f"group_type Coupled {NEEDS_GRAPH}")

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
            return torch.zeros(view.weights[name].shape[dim], device="cpu") if scores is None else scores

        level = self.level(next(iter(self._groups)), view)
        places = {name: group.kept[0] for name, group in self._groups.items()}
        return coupled_masks(places, places, score, lambda total: count(level, total, self.rounding_fn), view)


def _split(group_type: str, kwargs: Mapping[str, Any] | None) -> Group:
    """How weights split; coupled channels are made of filters."""
    return FILTERS if group_type == "Coupled" and not kwargs else find_group(group_type, kwargs)


def _kwargs(args: Mapping[str, Any]) -> Iterable[Complaint]:
    group_type, kwargs = args["group_type"], args.get("kwargs")
    problem = kwargs_problem(group_type, kwargs)
    if problem:
        yield "kwargs" if kwargs else "group_type", problem


def _group_of(args: Mapping[str, Any]) -> Group:
    """The group; of one that takes no `kwargs` also where some are given."""
    group_type = args["group_type"]
    kwargs = args.get("kwargs") if group_type == "Blocks" else None
    if kwargs_problem(group_type, kwargs):
        raise Withheld
    return _split(group_type, kwargs)


def _splits(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Weights that do not have such structures, or must not lose one."""
    group = _group_of(args)
    for name in args["weights"]:
        problem = shape_problem(group, args["group_type"], name, shapes[name])
        if problem:
            yield "group_type", problem
        elif problem := direction_problem(group, name, shapes):
            yield f"weights.{name}", problem


def _counts(names: Iterable[str], args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    """How many structures weights have, of those that have any."""
    group = _group_of(args)
    fitting = [name for name in names if not shape_problem(group, "", name, shapes[name])]
    return {name: placed(group, name, shapes).count(shapes[name]) for name in fitting}


def _sizes(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    size = 1 if args["group_type"] == "Coupled" else args["group_size"]
    for name, structures in _counts(args["weights"], args, shapes).items():
        if structures % size:
            yield "group_size", f"{size} does not divide {name}'s {structures} structures"


def _of_coupled(args: Mapping[str, Any]) -> Iterable[Complaint]:
    """Arguments that coupled channels, which are ranked each by itself, do not look at."""
    if args["group_type"] == "Coupled":
        yield from apart(_size_of_coupled(args), _leader_of_coupled(args))


def _size_of_coupled(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if "group_size" in args and args["group_size"] != 1:
        yield "group_size", "Coupled ranks each channel by itself: leave group_size out"


def _leader_of_coupled(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if args.get("group_dependency") is not None:
        yield "group_dependency", "Coupled ranks what belongs together as one: leave Leader out"


def _unequal(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    if args["group_type"] == "Coupled" or args.get("group_dependency") != "Leader":
        return
    leader = first(args, "weights")
    counts = _counts(args["weights"], args, shapes)
    for name in counts if leader in counts else ():
        try:
            _check_same(leader, counts[leader], name, counts[name])
        except ValueError as error:
            yield f"weights.{name}", str(error)


def _check_same(leader: str, wanted: int, name: str, found: int) -> None:
    if found != wanted:
        raise ValueError(f"Leader {leader} decides over {wanted} structures, but {name} has {found}")
