"""The comparison of ranks: what a scheduler is to do and has decided must be the same on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from torch import nn

from potstill.thinning import Recipe

from .masks import Masks
from .processes.digests import must_be_same
from .processes.ranks import Ranks
from .processes.shards import first_sharded
from .processes.uneven_inputs import watch_for_join


class Decided(Protocol):
    """The part of a scheduler that is compared."""

    model: nn.Module
    masks: Masks
    ranks: Ranks
    recipes: list[Recipe]

    @property
    def policies(self) -> Sequence[Any]:
        """The policies."""


def begin_together(scheduler: Decided, met: int, when: str) -> int:
    """Check that all ranks have the same policies at the same times, before any acts; and look out for `join()`.

    One that sends something would wait for ranks that do not have it, and a strength that differs would let weights
    drift apart, which no mask tells.

    Args:
        scheduler: what the policies are of.
        met: of how many policies this is known.
        when: the call in which the ranks meet.

    Returns:
        of how many it is known now: all.

    Raises:
        RanksDiffer: on all ranks: they have not the same.
    """
    if met != len(scheduler.policies) and scheduler.ranks.size > 1:
        if first_sharded(list(scheduler.model.parameters())) is None:
            watch_for_join(scheduler.model)
        policies = {
            f"policy {policy.name}": {"class": policy.acts, "when": policy.window, "arguments": policy.arguments()}
            for policy in scheduler.policies
        }
        must_be_same(policies, scheduler.ranks, when)
    return len(scheduler.policies)


def compare_ranks(scheduler: Decided, when: str, acted: Callable[[], Iterable[Any]] | None = None) -> None:
    """Check that all ranks have the same masks, gates, states of policies and recipes, by a digest of them.

    Args:
        scheduler: what has them.
        when: the call in which the ranks meet.
        acted: returns the policies that acted since ranks were compared, where their states and the masks that were
            set since will do, so that a thousand policies are not compared at each of a thousand epochs.

    Raises:
        RanksDiffer: on all ranks: they have not.
    """
    masks = scheduler.masks
    touched = list(masks.touched)
    masks.touched.clear()
    if scheduler.ranks.size == 1:
        return
    if acted is None:
        touched = [(name, owner) for name, entry in masks.items() for owner in entry.owners]
    owned = {(name, owner): masks[name].owners.get(owner) for name, owner in touched}
    parts: dict[str, Any] = {
        f"the mask of {name} by {owner}": None if own is None else [own.mask, own.mode]
        for (name, owner), own in owned.items()
    }
    compared = scheduler.policies if acted is None else acted()
    parts |= {f"the state of {policy.name}": policy.shared_state() for policy in compared}
    parts |= {f"recipe {number}": recipe.to_json() for number, recipe in enumerate(scheduler.recipes)}
    must_be_same(parts, scheduler.ranks, when)
