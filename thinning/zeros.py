"""Slices of weights that are zero: which of them thinning removes, and why the others stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .axes import best_axes
from .dead import Dead, find_dead
from .graph import Use
from .plan import select_removed
from .recipe import Kept
from .running.copies import named_tensors
from .running.default_device import on_cpu
from .running.inputs import beside
from .trace import Analysis, analyse
from .tracing.constants import zero_slices
from .unremoved import AVERAGED, OTHER, averaged, silent_reasons

Silent = Mapping[int, tuple[str, str]]
"""By label, of channels that are zero where they are made: by which parameter, and why they stay."""
Fate = Literal["removed", "inexact", "stays"]
ROUNDED = "could go, but stays for the number of channels (one at least, multiples of round_to)"
PARTLY = "one channel with other slices"
READ = "other parameters read these channels"


@dataclass(frozen=True)
class ZeroSlices:
    """Zero slices of one dimension of a weight that have one fate for one reason.

    Attributes:
        name: the weight.
        dim: its dimension that counts the slices.
        indices: which slices, ascending.
        fate: `removed` by thinning, `inexact`: removed only with `allow_inexact`, or `stays`.
        reason: why it stays or is not removed exactly.
        shared: other parameters that make the same channels and are not zero there.
        frozen: whether the channels can never be removed, whatever is zero.
    """

    name: str
    dim: int
    indices: Tensor = field(repr=False)
    fate: Fate
    reason: str = ""
    shared: tuple[str, ...] = ()
    frozen: bool = False


@dataclass(frozen=True)
class Outlook:
    """What thinning would do to a network as it is.

    Attributes:
        slices: the slices of weights that are zero, and what becomes of them.
        parameters: how many there are, and how many thinning would leave.
        macs: multiply-adds of one sample, likewise.
        inexact: parameters and multiply-adds that it would leave with `allow_inexact`.
    """

    slices: tuple[ZeroSlices, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    inexact: tuple[int, int]


@on_cpu
def outlook(model: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Outlook:
    """Say what thinning would remove, and what becomes of each slice that is zero now; the model stays as it is.

    Only planned, not tried: what the check of outputs would refuse is not known here.

    Args:
        model: the network, as it is before thinning.
        example_inputs: what it is called with.
        weights: parameters and buffers to look at in place of the model's own, by name.

    Raises:
        ThinningError: the model does not run on such inputs.
    """
    weights = {name: tensor.detach() for name, tensor in (weights or named_tensors(model)).items()}
    analysis = best_axes(analyse(model, beside(model, example_inputs), weights), weights)
    dead = find_dead(analysis, weights)
    exact, _ = select_removed(analysis, dead.channels, 1)
    inexact = best_axes(analysis, weights, allow_inexact=True)
    most, _ = select_removed(inexact, find_dead(inexact, weights, allow_inexact=True).channels, 1)
    # By id, which both analyses share: labels number classes, and these are others where an axis is chosen otherwise.
    gone = exact[analysis.numbers.labels]
    loose = most[inexact.numbers.labels] & ~gone
    found: list[ZeroSlices] = []
    for use, rows in _zero_uses(analysis, weights, ("out", "in", "scale")):
        found += [*_gone(analysis, use, rows, gone, "removed"), *_gone(inexact, use, rows, loose, "inexact")]
    silent = silent_reasons(analysis, dead, weights)
    found += [part for _, part in _staying(analysis, weights, dead, gone | loose, silent)]
    names = [name for name, _ in model.named_parameters()]
    now, then, loosely = (
        _size(*state, names) for state in ((analysis, exact & False), (analysis, exact), (inexact, most))
    )
    return Outlook(tuple(found), (now[0], then[0]), (now[1], then[1]), loosely)


def _size(analysis: Analysis, gone: Tensor, names: Iterable[str]) -> tuple[int, int]:
    """Return parameters and multiply-adds of a network without the channels `gone` (bool by label)."""
    graph = analysis.graph
    return int(graph.parameter_count(~gone, names)), round(float(graph.macs(~gone)))


def zeros_that_stay(analysis: Analysis, dead: Dead, weights: Mapping[str, Tensor], gone: Tensor) -> tuple[Kept, ...]:
    """Return the zero slices that are not removed (`gone`: the labels that are), by weight and reason."""
    kept = []
    named, silent = torch.zeros_like(gone), silent_reasons(analysis, dead, weights)
    for use, part in _staying(analysis, weights, dead, gone[analysis.numbers.labels], silent):
        if not _told(analysis, dead, use, part):
            kept.append(Kept(len(part.indices), f"{part.name}[{part.dim}]", part.reason))
            named[use.labels[part.indices]] = True
    rest: dict[tuple[str, str], int] = {}
    for label, (maker, why) in silent.items():
        if not named[label]:
            rest[maker, why] = rest.get((maker, why), 0) + 1
    return (*kept, *(Kept(count, maker, why) for (maker, why), count in rest.items()))


def _told(analysis: Analysis, dead: Dead, use: Use, part: ZeroSlices) -> bool:
    """Return whether a recipe says it elsewhere: in its notes, or with the constants that cannot be folded."""
    if part.reason == ROUNDED:
        return True
    if part.reason not in dead.stuck.values():
        return False
    label = use.labels[part.indices[0]]
    return use is next(first for first in analysis.graph.uses if bool((first.labels == label).any()))


def _zero_uses(
    analysis: Analysis,
    weights: Mapping[str, Tensor],
    roles: tuple[str, ...] = ("out", "in"),
    gone: Tensor | None = None,
) -> Iterable[tuple[Use, Tensor]]:
    """Return the dimensions of weights with these roles, and the slices that are zero (bool); no biases.

    Channels that are `gone` (bool by id) are left out.
    """
    for use in analysis.graph.uses:
        if use.role in roles and (use.role == "scale" or weights[use.name].dim() > 1):
            among = None if gone is None else ~gone[analysis.log.ids[use.name, use.dim]]
            rows = zero_slices(weights[use.name], use.dim, among)
            if bool(rows.any()):
                yield use, rows


def _gone(analysis: Analysis, use: Use, rows: Tensor, gone: Tensor, fate: Fate) -> list[ZeroSlices]:
    """Return the zero slices whose channels (bool by id) go."""
    ids = analysis.log.ids[use.name, use.dim]
    indices = (rows & gone[ids]).nonzero().flatten()
    if not len(indices):
        return []
    reason = ""
    if fate == "inexact":
        number = int(analysis.graph.inexact[analysis.numbers.labels[ids[indices]]].max())
        reason = analysis.graph.reasons[number] if number >= 0 else ""
    return [ZeroSlices(use.name, use.dim, indices, fate, reason)]


def _staying(
    analysis: Analysis, weights: Mapping[str, Tensor], dead: Dead, gone: Tensor, silent: Silent
) -> list[tuple[Use, ZeroSlices]]:
    """Return the zero slices that stay: those that make channels, and that read some which no zero slice makes."""
    makers = _Makers(analysis, weights)
    groups = averaged(analysis)
    named = torch.zeros_like(dead.channels)
    found: list[tuple[Use, ZeroSlices]] = []
    # What makes channels first: a zero slice that only reads what is named already adds nothing.
    uses = sorted(_zero_uses(analysis, weights, gone=gone), key=lambda pair: pair[0].role == "in")
    for use, rows in uses:
        stays = rows & (use.labels > 0)
        stays &= ~named[use.labels] if use.role == "in" else True
        reasons: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for index in stays.nonzero().flatten().tolist():
            why = _why(use, int(use.labels[index]), analysis, dead, silent, makers)
            if why[0].startswith(PARTLY) and int(use.labels[index]) in groups:
                why = groups[int(use.labels[index])], ()
            reasons.setdefault(why, []).append(index)
        for (reason, shared), indices in _in_one(reasons).items():
            frozen = bool(analysis.graph.frozen[use.labels[indices[0]]] >= 0)
            part = ZeroSlices(use.name, use.dim, torch.tensor(indices), "stays", reason, shared, frozen)
            found.append((use, part))
        if use.role == "out":
            named[use.labels[stays]] = True
    return found


def _in_one(reasons: Mapping[tuple[str, tuple[str, ...]], list[int]]) -> dict[tuple[str, tuple[str, ...]], list[int]]:
    """Return the reasons with one for all slices that other weights share: one line a weight, not one a combination."""
    sharing = [key for key in reasons if key[1]]
    if len(sharing) < 2:
        return dict(reasons)
    others = tuple(dict.fromkeys(name for _, shared in sharing for name in shared))
    told = f"the same channels as {listed(others)}, not zero in all of these", others
    indices = sorted(index for key in sharing for index in reasons[key])
    return {told: indices} | {key: found for key, found in reasons.items() if not key[1]}


def _why(
    use: Use, label: int, analysis: Analysis, dead: Dead, silent: Silent, makers: _Makers
) -> tuple[str, tuple[str, ...]]:
    """Return why a zero slice stays, and the weights that make the same channel and are not zero there."""
    graph = analysis.graph
    # From what holds whatever is zero to what other zeros would change.
    if graph.frozen[label] >= 0:
        return graph.reasons[int(graph.frozen[label])], ()
    if label in dead.stuck:
        return dead.stuck[label], ()
    if bool(dead.channels[label]):
        return ROUNDED, ()
    if label in silent:
        return silent[label][1], ()
    if use.role == "in":
        return READ, ()
    inexact = int(graph.inexact[label])
    norm = AVERAGED.format(graph.reasons[inexact]) if inexact >= 0 and not dead.inexact else ""
    return makers.partners(use.name, label, norm)


class _Makers:
    """The parameters that make a channel without being zero there."""

    def __init__(self, analysis: Analysis, weights: Mapping[str, Tensor]) -> None:
        self._analysis, self._weights = analysis, weights
        self._labels: dict[str, tuple[bool, set[int]]] | None = None

    def partners(self, name: str, label: int, norm: str) -> tuple[str, tuple[str, ...]]:
        """Say what keeps the channel `label` alive, of which `name` has a zero slice, and name the other weights.

        `norm`: what a norm that averages over it says, if one does; what scales zeros does not matter then.
        """
        if self._labels is None:  # not before: it looks at every weight, and few networks have such slices
            self._labels = self._loud()
        found = {other: matrix for other, (matrix, labels) in self._labels.items() if label in labels}
        others = tuple(other for other, matrix in found.items() if matrix and other != name)
        if others:
            return f"the same channels as {listed(others)}, not zero there", others
        if found.get(name):
            return f"{PARTLY} of {name} that are not zero (groups, heads, halves)", ()
        return norm or (f"{listed(tuple(found))} is not zero there" if found else OTHER), ()

    def _loud(self) -> dict[str, tuple[bool, set[int]]]:
        loud: dict[str, tuple[bool, set[int]]] = {}
        for use in self._analysis.graph.uses:
            if use.role in ("out", "scale", "shift"):
                weight = self._weights[use.name]
                zero = zero_slices(weight, use.dim)
                matrix, labels = loud.get(use.name, (weight.dim() > 1, set()))
                loud[use.name] = matrix, labels | set(use.labels[~zero].tolist())
        return loud


def listed(names: tuple[str, ...], most: int = 3) -> str:
    """Return the names, at most so many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
