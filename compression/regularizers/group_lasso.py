"""Group lasso: whole structures are drawn to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from potstill.thinning import Recipe

from ..declare.arguments import NonNegative, ParameterNames
from ..declare.cross_checks import Complaint, Shapes, Use, apart
from ..declare.names import resolve_mapping
from ..declare.registry import register
from ..parts.structures import FILTERS, GROUPS, Group, oriented, rank_problem
from ..parts.weight_norm import direction_problem
from ..processes.shards import part, with_part
from ..steps import Step
from .base import Regularizer, Site, refuse_complex
from .group_norms import CoupledGroups, GroupPart, PlainGroups
from .in_place_gradients import Penalty, Term, add_penalties

Criterion = Literal["Max", "Mean_Abs"] | None
LassoGroup = Literal[
    "2D", "3D", "Filters", "Channels", "Rows", "Cols", "4D",
    "Rows+Cols", "Cols+Rows", "Channels+4D", "4D+Channels", "Coupled",
]  # fmt: skip
GroupStrengths = Annotated[Mapping[str, tuple[NonNegative, LassoGroup]], ParameterNames()]


class GroupNorms(Term):
    """Sum over groups of strength x Euclidean norm."""

    def __init__(self, part: GroupPart) -> None:
        """Take the groups."""
        self.part = part

    def value(self, tensors: list[Tensor]) -> tuple[Tensor, Any]:
        """Return the sum; the norms are kept for the gradient."""
        self.part.move(tensors)
        norms = self.part.norms(tensors)
        return self.part.strengths.dot(norms), norms

    def add_gradients(self, tensors: list[Tensor], grads: list[Tensor], kept: Any, scale: Tensor) -> None:
        """Add strength x weight / norm, zero for a group that is zero: its factor has to be finite for that."""
        # The gradient of |w| is w / |w|; at 0, where it has none, 0 is one of its subgradients.
        least, most = torch.finfo(kept.dtype).tiny, torch.finfo(kept.dtype).max
        factors = (self.part.strengths * scale / kept.clamp_min(least)).clamp_(max=most)
        torch._foreach_addcmul_(grads, tensors, self.part.spread(factors, 0.0))


@register("regularizers")
class GroupLassoRegularizer(Regularizer):
    """Adds strength x sum over groups of the group's Euclidean norm (Yuan and Lin 2006), without size factor.

    `Rows+Cols` and `Channels+4D` add the penalties of both. A group of `Coupled` is a channel: the filters that make it
    in all layers that a residual sum ties together, their biases, and the weights and biases of the norms behind them.

    The proximal step multiplies each group by max(0, 1 - rate x strength / norm). For `Rows+Cols`, whose groups cross,
    the two steps after each other are an approximation; for `Channels+4D` they are exact (Jenatton et al. 2011).
    """

    has_proximal_step = True

    def __init__(self, reg_regims: GroupStrengths, threshold_criteria: Criterion = None) -> None:
        """Take `reg_regims`: weight name or pattern -> [strength, group type].

        With `threshold_criteria`, groups whose mean absolute value (or largest, for `Max`) is at most the strength
        become zero at the times that the policy's `threshold_at` says.
        """
        self.reg_regims, self.threshold_criteria = reg_regims, threshold_criteria

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Complain of groups that a tensor does not have, or whose end would be that of a weight norm."""
        return apart(_ranks(args, shapes), _thresholds(args, shapes))

    @classmethod
    def misuses(cls, use: Use) -> Iterable[Complaint]:
        """Yield a step that makes directions of a weight norm zero."""
        if use.args["mode"] == "proximal":
            for _, problem in _directions(use.given, use.shapes):
                yield "args.mode", problem

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `reg_regims`.

        Raises:
            ValueError: a weight has no such groups, or must not lose one.
        """
        self._model = model
        self._regims = resolve_mapping(self.reg_regims, model)
        refuse_complex(self._regims, model)
        args = {"reg_regims": self._regims, "threshold_criteria": self.threshold_criteria}
        found = [problem for _, problem in self.problems(args, Shapes(model))]
        if found:
            raise ValueError("; ".join(found))
        self._site: Site | None = None
        if not self._coupled():
            self._build()

    def prepare(self, site: Site) -> None:
        """Find out what is coupled.

        Raises:
            ValueError: the scheduler has no example inputs to trace the model with, or no channel can be removed.
        """
        self._site = site
        if self._coupled():
            self._build()

    def start(self) -> None:
        """Find out what is coupled now: layers may have lost channels since the policy was made."""
        self._build()

    def after_thinning(self, recipe: Recipe | None) -> None:
        """Follow the new shapes."""
        if recipe is not None:
            self._build()

    def loss(self, weights: Mapping[str, Tensor], step: Step) -> Tensor:
        """Return the penalty; the gradient of a group that is zero is zero."""
        return add_penalties(torch.zeros((), device=next(iter(weights.values())).device), self.penalties(weights))[0]

    def penalties(self, weights: Mapping[str, Tensor]) -> Sequence[Penalty]:
        """Return the penalty.

        A term for groups within weights, one for second groups of these, one for coupled channels.
        """
        return [Penalty(term, term.part.tensors(weights)) for term in self._terms]

    def threshold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks that keep the groups that are large enough."""
        if self.threshold_criteria is None:
            return {}
        masks: dict[str, Tensor] = {}
        for groups in self._groups:
            tensors = [tensor.detach() for tensor in groups.tensors(weights)]
            groups.move(tensors)
            sizes = groups.largest(tensors) if self.threshold_criteria == "Max" else groups.mean(tensors)
            keeps = groups.spread((sizes > groups.strengths).to(sizes), 1.0)
            for name, keep, tensor in zip(groups.names, keeps, tensors, strict=True):
                local = part(tensor)
                keep = with_part(tensor, keep.to(local).expand(local.shape))
                masks[name] = masks[name] * keep if name in masks else keep
        return masks

    def proximal(self, weights: Mapping[str, Tensor], rates: Mapping[str, float]) -> None:
        """Draw the norm of each group towards zero by rate x strength, and not beyond."""
        for groups in self._groups:
            tensors = groups.tensors(weights)
            groups.move(tensors)
            shrink = groups.by_name(rates) * groups.strengths
            norms = groups.norms(tensors)
            # A group that is zero stays zero: 0 times whatever its factor is, if that is finite.
            norms.clamp_min_(torch.finfo(norms.dtype).tiny)
            # The minimiser of 1/2 |x - w|^2 + t |x|: the group keeps its direction, and is zero where its norm is below
            # t.
            factors = (1 - shrink / norms).clamp_min(0)
            for tensor, factor in zip(tensors, groups.spread(factors, 1.0), strict=True):
                part(tensor).mul_(factor)

    def shrinks(self) -> Iterable[str]:
        """Return the parameters that the groups lie in."""
        return dict.fromkeys(name for part in self._groups for name in part.names)

    def targets(self) -> Iterable[str]:
        """Return the parameters that the threshold acts on."""
        return [name for part in self._groups for name in part.names] if self.threshold_criteria else ()

    def structures(self) -> Mapping[str, Group]:
        """Return how each weight splits, where it is into one kind of groups."""
        kinds = {name: _parts(group_type) for name, (_, group_type) in self._regims.items()}
        return {name: oriented(GROUPS[kind[0]], name, self._model) for name, kind in kinds.items() if len(kind) == 1}

    def _coupled(self) -> list[tuple[str, int, float]]:
        return [
            (name, oriented(FILTERS, name, self._model).kept[0], strength)
            for name, (strength, group_type) in self._regims.items()
            if group_type == "Coupled"
        ]

    def _build(self) -> None:
        shapes = {name: parameter.shape for name, parameter in self._model.named_parameters()}
        plain = [
            (name, oriented(GROUPS[group], name, self._model), strength)
            for name, (strength, group_type) in self._regims.items()
            for group in _parts(group_type)
            if group_type != "Coupled"
        ]
        # each name once a part: within a proximal step the second group of a weight must see what the first did
        rounds = [[e for i, e in enumerate(plain) if [p[0] for p in plain[:i]].count(e[0]) == n] for n in (0, 1)]
        self._groups: list[GroupPart] = [PlainGroups(entries, shapes) for entries in rounds if entries]
        coupled = self._coupled()
        if coupled:
            graph = self._site.graph() if self._site is not None else None
            if graph is None:
                raise ValueError("Coupled needs to know what belongs together: give the scheduler example_inputs")
            self._groups.append(CoupledGroups(coupled, graph, shapes))
        self._terms = [GroupNorms(part) for part in self._groups]


def _ranks(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    for name, (_, group_type) in args["reg_regims"].items():
        for group in _parts(group_type):
            problem = rank_problem(group, name, shapes[name])
            if problem:
                yield f"reg_regims.{name}", problem


def _thresholds(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    if args.get("threshold_criteria"):
        yield from _directions(args, shapes)


def _directions(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    for name, (_, group_type) in args["reg_regims"].items():
        found = (direction_problem(GROUPS[group], name, shapes) for group in _parts(group_type))
        problem = next(filter(None, found), None)
        if problem:
            yield f"reg_regims.{name}", problem


def _parts(group_type: str) -> list[str]:
    """Return the plain groups of a group type, the inner ones first, whichever way it is spelled."""
    if group_type == "Coupled":
        return ["Filters"]
    return sorted(group_type.split("+"), key=lambda part: (part == "4D", part))
