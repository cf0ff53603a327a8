"""Sensitivity analysis: what a network loses when one parameter alone is pruned, and how sparse each may become."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from potstill.thinning import trace, unwrapped

from .declare.names import is_pattern, resolve
from .parts.structures import CHANNELS, FILTERS, oriented
from .pruners import Pruner, View
from .pruners.element_levels import SparsityLevelParameterPruner
from .pruners.ranked_by_weight import L1RankedStructureParameterPruner
from .steps import Step, Window

logger = logging.getLogger(__name__)
Structure = Literal["element", "filter", "channel"]
GROUP_TYPES = {"filter": "Filters", "channel": "Channels"}
MODULES = (_ConvNd, nn.Linear, nn.MultiheadAttention, nn.RNNBase)
S = TypeVar("S")


@dataclass(frozen=True)
class Point(Generic[S]):
    """What the evaluation said of the network with one parameter pruned to one sparsity."""

    parameter: str
    sparsity: float
    scores: S


def prunable_weights(model: nn.Module, structure: Structure = "element") -> list[str]:
    """Return the weights of convolutions, Linears, attention and recurrent layers, by name in the model's order.

    For filters and channels those that have more than one: no sparsity below 1 prunes a single one. The directions of a
    weight norm stay out where they would become zero.
    """
    owners = {id(p) for m in model.modules() if isinstance(m, MODULES) for p in m.parameters(recurse=False)}
    return [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in owners
        and parameter.dim() > 1
        and _structures(structure, name, model) > 1
        and (structure == "element" or not _refusal(model, structure, name))
    ]


def named_weights(model: nn.Module, parameters: str | Sequence[str], structure: Structure = "element") -> list[str]:
    """Return the parameters that names and patterns fit; of a pattern those that have such structures.

    Raises:
        ValueError: a name or pattern fits nothing, or nothing that has such structures.
    """
    resolve(parameters, model)  # complains of all that fit nothing
    found: dict[str, None] = {}
    for given in [parameters] if isinstance(parameters, str) else parameters:
        names = resolve(given, model)
        refusals = {name: text for name in names if (text := _refusal(model, structure, name))}
        if refusals and (len(refusals) == len(names) or not is_pattern(given)):
            raise ValueError(next(iter(refusals.values())))
        found.update(dict.fromkeys(name for name in names if name not in refusals))
    return list(found)


def _refusal(model: nn.Module, structure: Structure, name: str) -> str:
    """Return why a parameter cannot be pruned so; nothing where it can."""
    pruner = _pruner(structure, name, 0)
    try:
        pruner.bind(model)
    except ValueError as error:
        return str(error)
    return ""


def sensitivity_analysis(
    model: nn.Module,
    evaluate: Callable[[nn.Module], S],
    parameters: str | Sequence[str],
    levels: Sequence[float],
    structure: Structure = "element",
    example_inputs: Any = None,
    start: int = 0,
) -> Iterator[Point[S]]:
    """Prune one parameter at a time, evaluate, restore: for each parameter all levels (Li et al. 2017, figure 2b).

    The network is pruned during `evaluate` alone: before and after, also where that raises, it is bit for bit the same.
    A level that prunes nothing else than the one before is not evaluated again. Filters that live or die as a set are
    pruned as a set, as many sets as fit into the level; of each weight of which fewer are pruned, a warning tells once.

    Args:
        model: the network, already on its device.
        evaluate: gets the pruned network; what it returns comes with each point. It should not draw at random.
        parameters: names or patterns; `prunable_weights` lists those that are worth a look. What a pattern fits besides
            what has such structures (the biases that `conv*` fits, where filters are pruned) is left out.
        levels: sparsities, 0..1.
        structure: `element` prunes the smallest absolute values, `filter` and `channel` (output and input channels)
            those of smallest mean absolute value.
        example_inputs: what `model` is called with. With it, filters take along their biases and norms, as they do
            when a schedule prunes them; without it they leave them alone.
        start: so many of the first points are left out, of an analysis that goes on.

    Raises:
        ValueError: a name fits nothing, a level is not in 0..1, or a parameter has no such structures.
    """
    model = unwrapped(model)
    names = named_weights(model, parameters, structure)
    wrong = [level for level in levels if not 0 <= level <= 1]
    if wrong:
        raise ValueError(f"a sparsity must be in 0..1, not {wrong[0]}")
    probe = _Probe(model, evaluate, cache(lambda: None if example_inputs is None else trace(model, example_inputs)))
    places = [(name, level) for name in names for level in levels]
    return (Point(name, level, probe.scores(_pruner(structure, name, level))) for name, level in places[start:])


def tolerated_levels(points: Iterable[tuple[str, float, float]], least: float) -> dict[str, float]:
    """Return the highest sparsity of each parameter up to which no accuracy falls below `least`; 0 if none is good.

    Args:
        points: (parameter, sparsity, accuracy), of each parameter by rising sparsity.
        least: the accuracy to keep.
    """
    found: dict[str, float] = {}
    fallen: set[str] = set()
    for name, level, accuracy in points:
        found.setdefault(name, 0.0)
        if accuracy < least:
            fallen.add(name)
        elif name not in fallen:
            found[name] = level
    return found


class _Probe(Generic[S]):
    """Evaluates the network with masks; knows what it said of the dense network and of the last masks."""

    def __init__(self, model: nn.Module, evaluate: Callable[[nn.Module], S], graph: Callable[[], Any]) -> None:
        self.model, self.evaluate, self.graph = model, evaluate, graph
        self.known: list[tuple[dict[str, Tensor], S]] = []
        self.told: set[str] = set()

    def scores(self, pruner: Pruner) -> S:
        masks = self._masks(pruner)
        for before, scores in self.known:
            if before.keys() == masks.keys() and all(torch.equal(before[name], masks[name]) for name in masks):
                return scores
        with _masked(self.model, masks):
            scores = self.evaluate(self.model)
        self.known = [*[pair for pair in self.known if not pair[0]], (masks, scores)]
        return scores

    def _masks(self, pruner: Pruner) -> dict[str, Tensor]:
        """Return the masks that hide something."""
        pruner.bind(self.model)
        weights = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        masks = pruner.masks(View(Step(0), Window.at([0]), weights, {}, self.model, self.graph))
        for name, outcome in pruner.outcomes.items():
            if outcome.short and name not in self.told:
                self.told.add(name)
                logger.warning("%s: %s", name, outcome.shortfall)
        return {name: mask for name, mask in masks.items() if not mask.all()}


@contextmanager
def _masked(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Set what masks hide to zero, and put it back; buffers too, should the evaluation change them."""
    touched = [model.get_parameter(name).detach() for name in masks]
    saved = [(tensor, tensor.clone()) for tensor in (*touched, *model.buffers())]
    try:
        for parameter, mask in zip(touched, masks.values(), strict=True):
            parameter.masked_fill_(mask == 0, 0)
        yield
    finally:
        with torch.no_grad():
            for tensor, values in saved:
                tensor.copy_(values)


def _pruner(structure: Structure, name: str, level: float) -> Pruner:
    if structure == "element":
        return SparsityLevelParameterPruner({name: level})
    if structure not in GROUP_TYPES:
        raise ValueError(f"no structure {structure!r}: one of element, {', '.join(GROUP_TYPES)}")
    return L1RankedStructureParameterPruner(level, [name], GROUP_TYPES[structure])  # type: ignore[arg-type]


def _structures(structure: Structure, name: str, model: nn.Module) -> int:
    shape = model.get_parameter(name).shape
    if structure == "element":
        return shape.numel()
    return oriented(FILTERS if structure == "filter" else CHANNELS, name, model).count(shape)
