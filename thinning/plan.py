"""From dead channels to a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .attributes import kept_as
from .changes import AttributeChange, Folding, Magnitude, Rescaling, TensorChange, tensor_change
from .dead import Dead, folded_constants
from .label_sets import class_of_label
from .new_biases import weight_of
from .recipe import Kept, Recipe
from .trace import Analysis
from .tracing.rescalable_norms import added


def select_removed(analysis: Analysis, dead: Tensor, round_to: int) -> tuple[Tensor, list[str]]:
    """Return which dead channels really go: counts are rounded, and no dimension loses all of its channels."""
    dead, notes = dead.clone(), []
    if round_to > 1 or analysis.log.aligned:
        back = _rounded(analysis, dead, round_to)
        dead &= ~back
        if bool(back.any()):
            multiple = round_to if round_to > 1 else "what their operation needs"
            notes.append(f"{int(back.sum())} dead channels stay, so that counts are multiples of {multiple}")
    for use in analysis.graph.uses:
        # A dimension of size 0 breaks convolutions and norms, and views with -1: one channel of zeros costs almost
        # nothing.
        if bool(dead[use.labels].all()):
            dead[use.labels[0]] = False
            notes.append(f"all channels of {use.name}[{use.dim}] are dead; one stays, as zeros")
    return dead, notes


def _rounded(analysis: Analysis, dead: Tensor, round_to: int) -> Tensor:
    """Return the dead channels that stay so that each class keeps a multiple (or all) of its channels."""
    graph = analysis.graph
    group = class_of_label([use.labels for use in graph.uses], graph.frozen, graph.inexact)
    group[0] = -1
    back = torch.zeros_like(dead)
    multiples = torch.ones(len(dead), dtype=torch.int64)
    for ids, multiple in analysis.log.aligned:
        multiples[analysis.numbers.labels[ids]] = multiple
    for index in group[dead].unique().tolist():
        members = (group == index).nonzero().flatten()
        gone = members[dead[members]]
        kept, multiple = len(members) - len(gone), math.lcm(round_to, int(multiples[members].max()))
        # Of the channels with the same uses it does not matter which stay: the first dead ones.
        back[gone[: min(len(gone), -kept % multiple)]] = True
    return back


def tensor_changes(analysis: Analysis, dead: Tensor) -> tuple[TensorChange, ...]:
    """Return what stays of every parameter and buffer."""
    keeps: dict[str, dict[int, Tensor]] = {}
    for use in analysis.graph.uses:
        gone = dead[use.labels]
        if bool(gone.any()):
            keeps.setdefault(use.name, {})[use.dim] = (~gone).nonzero().flatten()
    return tuple(tensor_change(name, analysis.graph.shapes[name], keep) for name, keep in keeps.items())


def attribute_changes(analysis: Analysis, dead: Tensor, model: nn.Module) -> tuple[AttributeChange, ...]:
    """Return the module's own integers that count removed channels."""
    changes = []
    for use in analysis.graph.attributes:
        value = kept_as(model.get_submodule(use.module), use.name)
        old = value if use.index is None else value[use.index]
        new = int((~dead[use.labels]).sum())
        # Also where the attribute counts several classes: all of its labels were listed when it was found.
        if new != len(use.labels):
            changes.append(AttributeChange(use.module, use.name, use.index, old, new))
    return tuple(changes)


def rescalings(analysis: Analysis, dead: Tensor, weights: Mapping[str, Tensor], model: nn.Module) -> list[Rescaling]:
    """Return what makes up for the channels that go in norms that average over them."""
    found: list[Rescaling] = []
    for norm in analysis.log.rescales:
        before, after = len(norm.ids), int((~dead[analysis.numbers.labels[norm.ids]]).sum())
        if after < before:
            name = f"{norm.module}.{norm.weight}".lstrip(".")
            name = analysis.graph.aliases.get(name, name)
            old = getattr(model.get_submodule(norm.module), norm.attribute)
            new = added(old, weights[name].dtype) * before / after
            factor = 1.0 if name in {other.name for other in found} else (before / after) ** norm.power
            found.append(Rescaling(name, factor, norm.offset, norm.module, norm.attribute, old, new))
    return found


def magnitudes(analysis: Analysis, changes: Sequence[TensorChange]) -> tuple[Magnitude, ...]:
    """Return the magnitudes that make up for inputs that go in weight norms."""
    losers = {change.name: change for change in changes}
    found = {
        norm.magnitude: Magnitude(norm.magnitude, norm.directions, norm.dim)
        for norm in analysis.log.weight_norms
        if norm.directions in losers and set(losers[norm.directions].keep) - {norm.dim}
    }
    return tuple(found.values())


def make_recipe(
    analysis: Analysis, dead: Dead, weights: Mapping[str, Tensor], model: nn.Module, round_to: int = 1
) -> tuple[Recipe, Tensor]:
    """Return the recipe that removes dead channels (measurements are filled in later), and which labels go."""
    gone, notes = select_removed(analysis, dead.channels, round_to)
    changes = tensor_changes(analysis, gone)
    keep = {change.name: change.keep for change in changes}
    folds = []
    made = set(analysis.without_bias.values())
    for name, amount in folded_constants(analysis, gone, weights).items():
        # The amounts are by old index; the recipe adds them after slicing.
        like, dim = (weight_of(name), _out_dim(analysis, weight_of(name))) if name in made else (name, 0)
        kept = keep.get(like, {}).get(dim)
        folds.append(Folding(name, amount if kept is None else amount[kept]))
    recipe = Recipe(
        model=type(model).__name__,
        tensors=changes,
        attributes=attribute_changes(analysis, gone, model),
        folds=tuple(folds),
        biases=tuple(fold.name for fold in folds if fold.name in made),
        rescalings=tuple(rescalings(analysis, gone, weights, model)),
        magnitudes=magnitudes(analysis, changes),
        frozen=_frozen(analysis),
        refused=_refused(analysis, dead),
        notes=(*analysis.log.warnings, *notes),
    )
    return recipe, gone


def _out_dim(analysis: Analysis, weight: str) -> int:
    return next(layer.out_dim for layer in analysis.log.layers if layer.weight == weight)


def _frozen(analysis: Analysis) -> tuple[Kept, ...]:
    return tuple(
        Kept(group.size, f"{group.uses[0][0]}[{group.uses[0][1]}]", group.reason)
        for group in analysis.graph.classes()
        if group.status == "frozen"
    )


def _refused(analysis: Analysis, dead: Dead) -> tuple[Kept, ...]:
    reasons: dict[tuple[str, str], int] = {}
    first: dict[int, str] = {}
    for use in analysis.graph.uses:
        for label in use.labels.tolist() if dead.stuck else ():
            first.setdefault(label, f"{use.name}[{use.dim}]")
    for label, why in dead.stuck.items():
        key = (first.get(label, "?"), why)
        reasons[key] = reasons.get(key, 0) + 1
    return tuple(Kept(count, use, why) for (use, why), count in reasons.items())
