"""Which channels are dead: every sum that reads them would not notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .trace import Traced
from .tracing.constants import zero_rows
from .tracing.log import LayerNote, Read


@dataclass(frozen=True)
class Fold:
    """A constant that the channels `columns` of a layer's input hold: it moves into what is added to its output."""

    layer: int
    columns: Tensor
    values: Tensor


@dataclass
class Dead:
    """`channels` (bool by label) may go; `stuck` are constants that cannot be folded, and why."""

    channels: Tensor
    stuck: dict[int, str] = field(default_factory=dict)


def find_dead(traced: Traced, weights: Mapping[str, Tensor], allow_inexact: bool = False) -> Dead:
    """Liveness from the outputs backwards: a channel lives if some living output depends on its value.

    A sum does not depend on a channel whose value there is 0 or whose weights for all living outputs are 0; a known
    constant may be folded into the layer's bias. Channels that nothing reads are left alone.
    """
    graph = traced.graph
    alive = (graph.frozen >= 0) | (torch.zeros_like(graph.frozen).bool() if allow_inexact else graph.inexact >= 0)
    alive[0] = True
    read = torch.zeros_like(alive)
    stuck: dict[int, str] = {}
    while True:
        before = alive.clone()
        for item in reversed(traced.notes.reads):
            labels = traced.numbers.labels[item.ids]
            read[labels] = True
            needs = _needs(traced, weights, item, alive, labels)
            fixed = needs & _constant(item)
            if bool(fixed.any()) and (why := _unfoldable(traced, item)):
                stuck.update(dict.fromkeys(labels[fixed].tolist(), why))
            elif bool(fixed.any()):
                needs &= ~fixed
            alive[labels[needs]] = True
        if torch.equal(alive, before):
            break
    dead = read & ~alive
    return Dead(dead, {key: why for key, why in stuck.items() if not dead[key]})


def _needs(traced: Traced, weights: Mapping[str, Tensor], item: Read, alive: Tensor, labels: Tensor) -> Tensor:
    """Which of the channels that a sum reads change a living output."""
    needs = ~alive[labels]
    if item.value is not None:
        needs &= item.value != 0
    if item.layer is not None and bool(needs.any()):
        note = traced.notes.layers[item.layer]
        needs &= ~_zero_columns(note, weights[note.weight], alive[traced.numbers.labels[note.out_ids]])
    return needs


def _zero_columns(note: LayerNote, weight: Tensor, living: Tensor) -> Tensor:
    """Which inputs of a layer have weight 0 for all living outputs."""
    matrix = weight.movedim((note.out_dim, note.in_dim), (0, 1))
    if note.groups == 1:
        return zero_rows(matrix.transpose(0, 1), living if len(living) else None)
    if note.in_dim == 0:
        return zero_rows(matrix.transpose(0, 1))
    parts = zip(matrix.chunk(note.groups), living.chunk(note.groups), strict=True)
    return torch.cat([zero_rows(part.transpose(0, 1), rows) for part, rows in parts])


def _constant(item: Read) -> Tensor:
    if item.value is None:
        return torch.zeros(len(item.ids), dtype=torch.bool)
    return ~item.value.isnan() & (item.value != 0)


def fold_target(traced: Traced, layer: int) -> str | None:
    """The tensor that takes a constant: the layer's bias, or the running mean of the BatchNorm right behind."""
    note = traced.notes.layers[layer]
    if note.bias is not None:
        return note.bias
    mean = f"{note.norm.rpartition('.')[0]}.running_mean".lstrip(".") if note.norm else ""
    return mean if mean in traced.graph.shapes else None


def _unfoldable(traced: Traced, item: Read) -> str:
    if item.layer is None:
        return "a constant other than 0 is summed where no layer can take it"
    note = traced.notes.layers[item.layer]
    if not item.foldable:
        return f"a constant other than 0 meets the zero padding of {note.weight.removesuffix('.weight')}"
    name = note.weight.removesuffix(".weight")
    layers = [other for other in traced.notes.layers if not other.again]
    if sum(note.weight == other.weight or note.bias == other.bias is not None for other in layers) > 1:
        return f"a constant other than 0 goes into {name}, which is used more than once"
    if note.groups > 1:
        return f"a constant other than 0 goes into {name}, which has groups"
    if fold_target(traced, item.layer) is None:
        return f"a constant other than 0 goes into {name}, which has no bias to take it"
    return ""


def folds_of(traced: Traced, dead: Tensor) -> list[Fold]:
    """The constants that the channels which go hold at each layer that reads them."""
    folds = []
    for item in traced.notes.reads:
        labels = traced.numbers.labels[item.ids]
        if item.value is None or item.layer is None:
            continue
        columns = (dead[labels] & _constant(item)).nonzero().flatten()
        if len(columns):
            folds.append(Fold(item.layer, columns, item.value[columns]))
    return folds


def fold_amounts(traced: Traced, weights: Mapping[str, Tensor], folds: list[Fold]) -> dict[str, Tensor]:
    """What to add (float64, on the CPU) to which bias or running mean."""
    amounts: dict[str, Tensor] = {}
    for fold in folds:
        note = traced.notes.layers[fold.layer]
        target = fold_target(traced, fold.layer)
        if target is None or note.groups > 1:
            continue  # only where a removal is tried that is refused
        matrix = weights[note.weight].detach().movedim((note.out_dim, note.in_dim), (0, 1))
        picked = matrix[:, fold.columns.to(matrix.device)].double().cpu()
        amount = picked.reshape(*picked.shape[:2], -1).sum(2) @ fold.values
        amount = amount if target == note.bias else -amount
        amounts[target] = amounts.get(target, 0) + amount
    return amounts
