"""The account of a run: what each policy asked of each parameter, what it hid, and what thinning can do with that."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from potstill.thinning import Outlook, Recipe, ZeroSlices, outlook

from .account_table import Entry, account_table, account_text
from .history import History, Span
from .masks import Masks
from .parts.claims import Claim, Goal
from .parts.structures import Group
from .policies import ScheduledTrainingPolicy
from .processes.shards import first_sharded

logger = logging.getLogger(__name__)
MISSED = 0.005
WHOLE = "thinning removes whole channels"
OF_WHOLE = "the account of what was asked and done needs whole weights, and these are sharded (fully_shard)"
UNTRACED = "nothing is known of it without example_inputs"


class Hiding(Protocol):
    """What hides weights."""

    model: nn.Module
    masks: Masks
    policies: list[ScheduledTrainingPolicy]


class Accountable(Hiding, Protocol):
    """What of a scheduler an account is made from."""

    history: History
    example_inputs: Any
    recipes: list[Recipe]
    removed: dict[str, dict[str, int]]


def entries_of(scheduler: Accountable) -> list[Entry]:
    """Return the account of a scheduler as it stands."""
    found = []
    view = _Network(scheduler)
    for policy in scheduler.policies:
        span = scheduler.history.spans.get(policy.name)
        claims = policy.claims(None if span is None else span[1])
        for name, claim in claims.items():
            entry = view.entry(policy, name, claim, span)
            # What the policy lists already is no way out.
            entry.shared = tuple(other for other in entry.shared if other not in claims)
            found.append(entry)
        goal = policy.goal()
        if goal is not None:
            found.append(view.whole(policy, goal, span))
        elif not claims:
            found.append(Entry(policy.name, "", "", 0, None, 0, 0, 0, 0, "", span=span))
    return found


def tell_nothing(entries: Iterable[Entry]) -> None:
    """Warn of each policy that acted and hides nothing, though it was asked to: why."""
    rows: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.span is not None and entry.asked is not None and entry.parameter:
            rows.setdefault(entry.policy, []).append(entry)
    for policy, own in rows.items():
        if not any(entry.hidden for entry in own):
            reasons = dict.fromkeys(entry.why for entry in own if entry.why)
            logger.warning("%s acted, and hides nothing now: %s", policy, "; ".join(reasons) or "nothing was asked")


def tell_zeros(entries: Iterable[Entry]) -> None:
    """Warn of each weight whose hidden structures stay as zeros: how many, why, and the way out."""
    for entry in entries:
        if entry.group is not None and entry.stays:
            logger.warning(
                "%s: %d of %d hidden %s of %s stay as zeros: %s (%s)",
                entry.policy,
                entry.stays,
                entry.hidden,
                entry.unit,
                entry.parameter,
                entry.why,
                _way_out(entry),
            )


def tell_account(scheduler: Accountable) -> None:
    """Log the account, and warn of zeros that stay and targets that are missed."""
    if first_sharded(list(scheduler.model.parameters())) is not None:
        logger.info("%s", OF_WHOLE)
    elif any(policy.compresses for policy in scheduler.policies):
        entries = entries_of(scheduler)
        logger.info("%s", account_text(account_table(entries)))
        tell_nothing(entries)
        tell_zeros(entries)
        tell_goals(entries)


def hidden_structures(scheduler: Hiding) -> dict[str, dict[str, int]]:
    """Return policy -> parameter -> how many structures it hides now."""
    weights = dict(scheduler.model.named_parameters())
    found: dict[str, dict[str, int]] = {}
    for policy in scheduler.policies:
        masks = scheduler.masks.of(policy.name)
        hiding = {**(weights if _leaves_no_masks(policy) else {}), **masks}
        claims = policy.claims(None) if hiding else {}
        found[policy.name] = {
            name: int(_zero(claim.group, hiding[name]).sum()) for name, claim in claims.items() if name in hiding
        }
    return found


def tell_goals(entries: Iterable[Entry]) -> None:
    """Warn of each target of the whole network that thinning will miss by more than half a percent."""
    for entry in entries:
        if entry.asked is not None and not entry.parameter and abs(entry.asked - entry.removable) > MISSED * entry.of:
            asked, reached = (100 * part / entry.of for part in (entry.asked, entry.removable))
            logger.warning(
                "%s: %.2f %% of the %s were to be removed, and thinning removes %.2f %% (whole channels, and whatever"
                " else is zero)",
                entry.policy, asked, entry.unit, reached,
            )  # fmt: skip


class _Network:
    """The network that an account is of: its zeros, and what thinning would do with them."""

    def __init__(self, scheduler: Accountable) -> None:
        self._scheduler = scheduler
        self._weights = dict(scheduler.model.named_parameters())
        # How many elements parameters had before they were thinned for the first time.
        changes = [change for recipe in reversed(scheduler.recipes) for change in recipe.tensors]
        self._dense = {change.name: math.prod(change.shape) for change in changes}
        self._outlook: Outlook | None = None
        if scheduler.example_inputs is not None:
            self._outlook = outlook(scheduler.model, scheduler.example_inputs)

    def entry(self, policy: ScheduledTrainingPolicy, name: str, claim: Claim, span: Span | None) -> Entry:
        weight, group = self._weights[name].detach(), claim.group
        mask = self._scheduler.masks.of(policy.name).get(name)
        hidden = _zero(group, weight if mask is None and _leaves_no_masks(policy) else _mask(mask, weight))
        before = self._scheduler.removed.get(policy.name, {}).get(name, 0)
        gone, inexact = (hidden & self._within(name, weight, group, fate) for fate in ("removed", "inexact"))
        left = hidden & ~gone & ~inexact
        why, shared, frozen = self._reasons(name, group, left)
        none = span is not None and not before and not bool(hidden.any())
        passing = _why_none(policy, claim, group) if none and not claim.why else ""
        return Entry(
            policy=policy.name,
            parameter=name,
            unit=_unit(group),
            of=len(hidden) + before if group is not None else self._dense.get(name, len(hidden)),
            asked=claim.asked,
            hidden=int(hidden.sum()) + before,
            removable=int(gone.sum()) + before,
            inexact=int((inexact & ~gone).sum()),
            stays=int(left.sum()),
            why="; ".join(filter(None, (claim.why, passing, why))),
            shared=shared,
            frozen=frozen,
            span=span,
            group=group,
        )

    def whole(self, policy: ScheduledTrainingPolicy, goal: Goal, span: Span | None) -> Entry:
        """Return what thinning removes of the whole network, for a policy with a goal."""
        left = inexactly = goal.of if goal.left is None else goal.left
        if self._outlook is not None and goal.unit != "microseconds":
            parameters = goal.unit == "parameters"
            left = (self._outlook.parameters if parameters else self._outlook.macs)[1]
            inexactly = self._outlook.inexact[0 if parameters else 1]
        if policy.allows_inexact:
            left = inexactly
        gone = goal.of - left
        return Entry(policy.name, "", goal.unit, goal.of, goal.asked, gone, gone, left - inexactly, 0, "", span=span)

    def _slices(self, name: str) -> list[ZeroSlices]:
        return [] if self._outlook is None else [part for part in self._outlook.slices if part.name == name]

    def _within(self, name: str, weight: Tensor, group: Group | None, fate: str) -> Tensor:
        """Return which structures lie in slices of a fate: bool, (structures,)."""
        inside = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
        for part in self._slices(name):
            if part.fate == fate:
                inside.index_fill_(part.dim, part.indices.to(weight.device), True)
        return inside.flatten() if group is None else group.split(inside).all(1)

    def _reasons(self, name: str, group: Group | None, left: Tensor) -> tuple[str, tuple[str, ...], bool]:
        """Return why structures stay, what shares their channels, and whether no list of weights changes that."""
        if not bool(left.any()):
            return "", (), False
        if self._outlook is None:
            return UNTRACED, (), False
        parts = [part for part in self._slices(name) if group is not None and group.kept == (part.dim,)]
        met = [part for part in parts if part.fate == "stays" and bool(left[part.indices.to(left.device)].any())]
        if not met:
            return WHOLE, (), False
        shared = tuple(dict.fromkeys(other for part in met for other in part.shared))
        return "; ".join(dict.fromkeys(part.reason for part in met)), shared, all(part.frozen for part in met)


def _why_none(policy: ScheduledTrainingPolicy, claim: Claim, group: Group | None) -> str:
    """Return why a policy that acted hides nothing of a parameter."""
    if claim.asked == 0:
        return f"less than one of the {_unit(group)} was asked"
    return policy.why_passing() if claim.asked else ""


def _zero(group: Group | None, values: Tensor) -> Tensor:
    """Return which structures are zero throughout: bool, (structures,)."""
    return (values == 0).flatten() if group is None else (group.split(values) == 0).all(1)


def _mask(mask: Tensor | None, weight: Tensor) -> Tensor:
    return torch.ones_like(weight, dtype=torch.bool) if mask is None else mask


def _leaves_no_masks(policy: ScheduledTrainingPolicy) -> bool:
    """Return whether zeros are in the weights alone: those of a threshold, or of a proximal step."""
    return policy.zeroes_weights


def _unit(group: Group | None) -> str:
    if group is None:
        return "weights"
    if group.block:
        return "blocks"
    kinds = {0: "layers", 1: "filters" if group.output else "channels", 2: "kernels"}
    return kinds[len(group.kept)]


def _way_out(entry: Entry) -> str:
    if entry.shared:
        return f"use group_type: Coupled, or list {_and(entry.shared)} too"
    if entry.frozen:
        return "thinning cannot remove them: leave this weight out, or keep them as zeros"
    return "use group_type: Coupled, which hides what belongs together"


def _and(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
