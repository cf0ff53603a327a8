"""The list of a scheduler's policies: how one joins it, and what they make of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from torch import Tensor

from ..steps import Window
from .base import LossComponent, Moment, PolicyLoss, ScheduledTrainingPolicy
from .host import Host
from .joined import Joined


class Hosting(Host, Protocol):
    """A host that has policies."""

    policies: list[ScheduledTrainingPolicy]
    joined: Joined


def window_of(
    window: Window | None,
    epochs: Sequence[int] | None,
    starting_epoch: int | None,
    ending_epoch: int | None,
    frequency: int,
) -> Window:
    """Return the window that is given as such, as a list of epochs, or as a range (end exclusive).

    Raises:
        ValueError: it is given in more than one way or not at all.
    """
    given = [window is not None, epochs is not None, starting_epoch is not None or ending_epoch is not None]
    if sum(given) != 1:
        raise ValueError("say when by exactly one of: window, epochs, starting_epoch and ending_epoch")
    if window is not None:
        return window
    if epochs is not None:
        return Window.at(epochs)
    if ending_epoch is None:
        raise ValueError("ending_epoch is missing (it is the first epoch after the window)")
    return Window.between(starting_epoch or 0, ending_epoch, frequency)


def join(host: Hosting, policy: ScheduledTrainingPolicy, window: Window, name: str | None) -> None:
    """Put a policy last; one that weighs the loss goes before those that add to it.

    Raises:
        ValueError: the name is taken, the policy was added before, or it names a parameter that does not exist.
    """
    policies, joined = host.policies, host.joined
    if joined.has(policy):
        raise ValueError("this policy was added before: make a new one for another window")
    name = name or f"{len(policies)}_{type(policy).__name__}"
    if name in joined.names:
        raise ValueError(f"a policy called {name} exists already")
    policy.bind(host, window, name)
    policies.insert(joined.weighing if policy.weighs_loss else len(policies), policy)
    joined.add(policy)


def with_terms(
    observers: Iterable[ScheduledTrainingPolicy],
    active: Iterable[ScheduledTrainingPolicy],
    moment: Moment,
    loss: Tensor,
) -> PolicyLoss:
    """Return the loss as each of the active policies makes it of that of the one before, and the terms by name."""
    for policy in observers:
        policy.see_loss(moment, loss)
    components: list[LossComponent] = []
    for policy in active:
        result = policy.before_backward_pass(moment, loss)
        if result is not None:
            loss, parts = result
            components.extend(parts)
    return PolicyLoss(loss, components)
