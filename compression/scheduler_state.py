"""What a scheduler's checkpoint holds, and how it is taken back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from torch import nn

from potstill.thinning import Recipe, beside
from potstill.thinning.files.text import printable

from .declare.names import respelled
from .files.checked import CheckpointError, Field, reading
from .history import History
from .masks import Masks
from .policies import ScheduledTrainingPolicy
from .processes.digests import must_be_same
from .processes.local_states import take_back, to_store
from .processes.ranks import Ranks
from .sharded_state import check_parts, pack, unpack

logger = logging.getLogger(__name__)

NEEDED = ("masks", "policies", "classes", "recipes")
"""What each state holds, one of an older version too."""


class Stateful(Protocol):
    """What of a scheduler has a state."""

    model: nn.Module
    masks: Masks
    policies: list[ScheduledTrainingPolicy]
    recipes: list[Recipe]
    history: History
    removed: dict[str, dict[str, int]]
    begun: tuple[int, ...] | None

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""


def state_of(scheduler: Stateful) -> dict[str, Any]:
    """Return masks, the policies' states and the recipes as tensors and plain data."""
    state = {
        "begun": None if scheduler.begun is None else list(scheduler.begun),
        "masks": scheduler.masks.state_dict(),
        "policies": {policy.name: policy.state_dict() for policy in scheduler.policies},
        "classes": {policy.name: policy.acts for policy in scheduler.policies},
        "recipes": [recipe.to_json() for recipe in scheduler.recipes],
        "acted": scheduler.history.state_dict(),
        "removed": scheduler.removed,
        **to_store(scheduler.policies, scheduler.ranks),
    }
    return pack(state, scheduler.model)


def restore(scheduler: Stateful, state: Mapping[str, Any]) -> None:
    """Take back what `state_of` gave.

    Raises:
        CheckpointError: the state does not fit the model or the policies, or is no such state: nothing has changed.
        RanksDiffer: on all ranks: they were given different states; nothing has changed.
    """
    kept = {name: getattr(scheduler, name) for name in ("recipes", "begun", "removed")}
    history, policies = vars(scheduler.history).copy(), [(p, p.state_dict()) for p in scheduler.policies]
    try:
        _take(scheduler, state)
    except BaseException:  # Ctrl-C too
        for policy, before in policies:
            with suppress(Exception):  # what it has gathered is lost then, and the network is as it was
                policy.load_state_dict(before)
        vars(scheduler.history).update(history)
        vars(scheduler).update(kept)
        raise


def _take(scheduler: Stateful, state: Mapping[str, Any]) -> None:
    check_parts(state, scheduler.model, scheduler.ranks)
    with reading("state"):
        state = unpack(state)
        if missing := [name for name in NEEDED if name not in state]:
            raise CheckpointError(f"{', '.join(missing)} missing: give load_state_dict() what state_dict() gave")
        names = [name for name, _ in (*scheduler.model.named_parameters(), *scheduler.model.named_modules())]
        stored = {**state, "policies": respelled(state.get("policies"), names)}
        fields = Field(beside(scheduler.model, {key: stored[key] for key in state}))
    # Before a policy begins what others do not. When they acted tells states apart; of their own a part is a rank's.
    shared = {f"the state's {key}": value for key, value in state.items() if key not in ("policies", "ranks")}
    must_be_same(shared, scheduler.ranks, "load_state_dict()")
    take_masks = scheduler.masks.checked(fields["masks"].value)
    with reading("recipes"):
        scheduler.recipes = [Recipe.from_json(text.text()) for text in fields["recipes"].items()]
    begun = _optional(fields, state, "begun")
    scheduler.begun = None if begun.value is None else begun.integers(3)
    scheduler.history.load_state_dict(_optional(fields, state, "acted"))
    scheduler.removed = _counts(_optional(fields, state, "removed"))
    states, classes = fields["policies"].mapping(), fields["classes"].mapping()
    _tell_of_others(scheduler.policies, classes)
    for policy in scheduler.policies:
        if policy.name in states:
            with reading(f"policies.{policy.name}"):
                policy.check_class(classes[policy.name].text())
                policy.load_state_dict(states[policy.name].value)
    if "ranks" in state:
        take_back(scheduler.policies, fields["ranks"], scheduler.ranks)
    take_masks()  # last: only they change the network


def _tell_of_others(policies: Sequence[ScheduledTrainingPolicy], stored: Mapping[str, Field]) -> None:
    """Warn of policies that the state is not of; a scheduler without any only takes masks."""
    own = {policy.name for policy in policies}
    for name in map(printable, stored.keys() - own if policies else ()):
        logger.warning("policy %s of the checkpoint is not in this schedule: its state is dropped (masks stay)", name)
    for name in map(printable, own - stored.keys() if stored else ()):
        logger.warning("policy %s is not in the checkpoint: it begins afresh", name)


def _counts(removed: Field) -> dict[str, dict[str, int]]:
    policies = {} if removed.value is None else removed.mapping()
    return {name: {key: n.integer() for key, n in counts.mapping().items()} for name, counts in policies.items()}


def _optional(fields: Field, state: Mapping[str, Any], name: str) -> Field:
    """Return a field that states of earlier versions do not have."""
    return fields[name] if name in state else Field(None)
