"""Which channels are dead: every sum that reads them would not notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .trace import Analysis
from .tracing.constants import zero_rows
from .tracing.entries import LayerCall, Read


@dataclass
class Dead:
    """`channels` (bool by label) may go; `stuck` are constants that cannot be folded, and why.

    `inexact`: whether channels that a norm averages over were allowed to go.
    """

    channels: Tensor
    stuck: dict[int, str] = field(default_factory=dict)
    inexact: bool = False


def find_dead(analysis: Analysis, weights: Mapping[str, Tensor], allow_inexact: bool = False) -> Dead:
    """Find the dead channels from the outputs backwards: one lives if some living output depends on its value.

    A sum does not depend on a channel whose value there is 0 or whose weights for all living outputs are 0; a known
    constant may be folded into the layer's bias. Channels that nothing reads are left alone.
    """
    graph = analysis.graph
    alive = (graph.frozen >= 0) | (torch.zeros_like(graph.frozen).bool() if allow_inexact else graph.inexact >= 0)
    # Label 0 is "no channel": what a sum reads there is always needed.
    alive[0] = True
    read = torch.zeros_like(alive)
    stuck: dict[int, str] = {}
    reads = [item for item in analysis.log.reads if _is_sum(analysis, item)]
    while True:
        before = alive.clone()
        # Backwards in the order of the calls most chains settle in one pass: what a layer needs is known before the
        # layers before it are looked at. Loops (recurrence, tied weights) take another; the set only grows, so it ends.
        for item in reversed(reads):
            labels = analysis.numbers.labels[item.ids]
            read[labels] = True
            needs = _needs(analysis, weights, item, alive, labels)
            # sigmoid(0) = 0.5 and the bias of a dead BatchNorm: the channel is dead if its constant can move into a
            # bias, which all or none of those of one sum do.
            fixed = needs & _constant(item)
            if bool(fixed.any()) and (why := _unfoldable(analysis, item)):
                stuck.update(dict.fromkeys(labels[fixed].tolist(), why))
            elif bool(fixed.any()):
                needs &= ~fixed
            alive[labels[needs]] = True
        if torch.equal(alive, before):
            break
    dead = read & ~alive
    return Dead(dead, {key: why for key, why in stuck.items() if not dead[key]}, allow_inexact)


def _is_sum(analysis: Analysis, item: Read) -> bool:
    """Return whether channels end in a sum; those that go together with the sum live on in it."""
    return item.sums is None or bool(analysis.numbers.shared[analysis.numbers.labels[item.sums]].all())


def _needs(analysis: Analysis, weights: Mapping[str, Tensor], item: Read, alive: Tensor, labels: Tensor) -> Tensor:
    """Return which of the channels that a sum reads change a living output."""
    needs = ~alive[labels]
    if item.value is not None:
        needs &= item.value != 0
    if item.layer is not None and bool(needs.any()):
        entry = analysis.log.layers[item.layer]
        needs &= ~_zero_columns(entry, weights[entry.weight], alive[analysis.numbers.labels[entry.out_ids]])
    return needs


def _zero_columns(entry: LayerCall, weight: Tensor, living: Tensor) -> Tensor:
    """Return which inputs of a layer have weight 0 for all living outputs."""
    matrix = weight.movedim((entry.out_dim, entry.in_dim), (0, 1))
    # Of a grouped layer each group has inputs and outputs of its own.
    if entry.groups == 1:
        return zero_rows(matrix.transpose(0, 1), living if len(living) else None)
    if entry.in_dim == 0:
        return zero_rows(matrix.transpose(0, 1))
    parts = zip(matrix.chunk(entry.groups), living.chunk(entry.groups), strict=True)
    return torch.cat([zero_rows(part.transpose(0, 1), rows) for part, rows in parts])


def _constant(item: Read) -> Tensor:
    if item.value is None:
        return torch.zeros(len(item.ids), dtype=torch.bool)
    return ~item.value.isnan() & (item.value != 0)


def fold_target(analysis: Analysis, layer: int) -> str | None:
    """Return the tensor that takes a constant: the layer's bias, the running mean of the BatchNorm right behind, or a
    bias that the layer gets.
    """
    entry = analysis.log.layers[layer]
    if entry.bias is not None:
        return entry.bias
    # y = (x - mean) / s: a constant that the convolution adds to x may be taken off the mean instead. Most convolutions
    # of residual networks have no bias but a BatchNorm behind.
    mean = f"{entry.norm.rpartition('.')[0]}.running_mean".lstrip(".") if entry.norm else ""
    new = analysis.without_bias.get(entry.weight) if analysis.add_bias else None
    return mean if mean in analysis.graph.shapes else new


def _unfoldable(analysis: Analysis, item: Read) -> str:
    if item.layer is None:
        return "a constant other than 0 is summed where no layer can take it"
    entry = analysis.log.layers[item.layer]
    if not item.foldable:
        return f"a constant other than 0 meets the zero padding of {entry.weight.removesuffix('.weight')}"
    name = entry.weight.removesuffix(".weight")
    # A constant holds for one call; a bias that serves two calls would add it to both.
    layers = [other for other in analysis.log.layers if not other.again]
    if sum(entry.weight == other.weight or entry.bias == other.bias is not None for other in layers) > 1:
        return f"a constant other than 0 goes into {name}, which is used more than once"
    if entry.groups > 1:
        return f"a constant other than 0 goes into {name}, which has groups"
    if fold_target(analysis, item.layer) is None:
        way_out = " (add_bias=True gives it one)" if entry.weight in analysis.without_bias else ""
        return f"a constant other than 0 goes into {name}, which has no bias to take it{way_out}"
    return ""


def folded_constants(analysis: Analysis, dead: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what to add (float64, on the CPU) to which bias or running mean when `dead` channels go.

    Where a channel that goes holds a constant c, a layer's sum loses its weights on that channel times c.
    """
    amounts: dict[str, Tensor] = {}
    for item in analysis.log.reads:
        if item.value is None or item.layer is None:
            continue
        columns = (dead[analysis.numbers.labels[item.ids]] & _constant(item)).nonzero().flatten()
        entry, target = analysis.log.layers[item.layer], fold_target(analysis, item.layer)
        if not len(columns) or target is None or entry.groups > 1:
            continue  # the last two only where a removal is tried that is refused
        matrix = weights[entry.weight].detach().movedim((entry.out_dim, entry.in_dim), (0, 1))
        picked = matrix[:, columns.to(matrix.device)].double().cpu()
        amount = picked.reshape(*picked.shape[:2], -1).sum(2) @ item.value[columns]
        # a running mean is subtracted, so that it takes the constant with the other sign
        bias = target in (entry.bias, analysis.without_bias.get(entry.weight))
        amounts[target] = amounts.get(target, 0) + (amount if bias else -amount)
    return amounts
