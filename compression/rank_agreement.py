"""The comparison of ranks: what a scheduler has decided must be the same on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from potstill.thinning import Recipe

from .masks import Masks
from .processes.digests import must_be_same
from .processes.ranks import Ranks


class Decided(Protocol):
    """The part of a scheduler that is compared."""

    masks: Masks
    ranks: Ranks
    recipes: list[Recipe]

    @property
    def policies(self) -> Sequence[Any]:
        """The policies."""


def compare_ranks(scheduler: Decided, when: str) -> None:
    """Check that all ranks have the same masks, gates, states of policies and recipes, by a digest of them.

    Raises:
        RanksDiffer: on all ranks: they have not.
    """
    if scheduler.ranks.size == 1:
        return
    parts: dict[str, Any] = {
        f"the mask of {name} by {owner}": [owned.mask, owned.mode]
        for name, entry in scheduler.masks.items()
        for owner, owned in entry.owners.items()
    }
    parts |= {f"the state of {policy.name}": policy.shared_state() for policy in scheduler.policies}
    parts |= {f"recipe {number}": recipe.to_json() for number, recipe in enumerate(scheduler.recipes)}
    must_be_same(parts, scheduler.ranks, when)
