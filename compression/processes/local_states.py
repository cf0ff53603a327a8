"""What each rank gathered by itself, in the state of a training that may go on with another number of processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..files.checked import Field, reading
from .ranks import Ranks


class Gathers(Protocol):
    """The part of a policy that this is about."""

    name: str

    def local_state(self) -> dict[str, Any]:
        """See `ScheduledTrainingPolicy.local_state`."""
        ...

    def join_local_states(self, states: Sequence[Field]) -> None:
        """See `ScheduledTrainingPolicy.join_local_states`."""


def to_store(policies: Iterable[Gathers], ranks: Ranks) -> dict[str, Any]:
    """Return the local states of all ranks under `ranks`: a list with a mapping (policy -> state) for each.

    Nothing where there is one rank, or no policy that gathers.
    """
    own = {policy.name: state for policy in policies if (state := policy.local_state())}
    if ranks.size == 1 or not own:
        return {}
    return {"ranks": ranks.all(tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, own))}


def take_back(policies: Iterable[Gathers], stored: Field, ranks: Ranks) -> None:
    """Give policies what `to_store` gave: each rank its own, or, of another number of ranks, rank 0 all of it.

    Raises:
        CheckpointError: the states are not sound.
    """
    states = [state.mapping() for state in stored.items()]
    if len(states) == ranks.size:
        states = [states[ranks.rank]]
    elif ranks.rank > 0:
        states = []
    with torch.no_grad():
        for policy in policies:
            if policy.local_state():
                with reading(f"ranks.{policy.name}"):
                    policy.join_local_states([state[policy.name] for state in states if policy.name in state])
