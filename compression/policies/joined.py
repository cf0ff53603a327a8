"""What a policy that joins a scheduler is compared with, found without asking all that joined before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

MOST = 10
"""So many policies are named that a new one meets: of a thousand of each kind there are a million pairs."""


class Joining(Protocol):
    """What of a policy others may share."""

    name: str
    component: str

    @property
    def weighs_loss(self) -> bool:
        """Return whether it weighs the training loop's own loss."""


class Joined:
    """The policies of a scheduler by what a new one may share with them.

    Attributes:
        names: the policies by name.
        weighing: how many weigh the loss.
    """

    def __init__(self) -> None:
        """Know none."""
        self.names: dict[str, Joining] = {}
        self.weighing = 0
        self._components: dict[str, Joining] = {}
        self._acting: dict[str, dict[type, list[tuple[int, Any]]]] = {}

    def has(self, policy: Joining) -> bool:
        """Return whether the policy joined before."""
        return self.names.get(getattr(policy, "name", "")) is policy

    def add(self, policy: Joining) -> None:
        """Note a policy that has joined."""
        place = len(self.names)
        self.names[policy.name] = policy
        self.weighing += policy.weighs_loss
        self._tell_apart(policy)
        for name in set(_targets(policy)):
            alike = self._acting.setdefault(name, {}).setdefault(type(policy), [])
            if len(alike) < MOST:
                alike.append((place, policy))

    def met(self, policy: Any) -> list[Any]:
        """Return the first policies, up to `MOST`, of another kind that act on a parameter of a new one."""
        kinds = [self._acting.get(name, {}) for name in policy.targets()]
        others = {
            place: other
            for acting in kinds
            for kind, alike in acting.items()
            if kind is not type(policy)
            for place, other in alike
        }
        return [others[place] for place in sorted(others)[:MOST]]

    def _tell_apart(self, policy: Joining) -> None:
        """Put the policies' names before the names of loss components that would be the same.

        Distiller called them all by their class: `L1Regularizer_loss` stays where there is one, two of them become
        `a.L1Regularizer_loss` and `b.L1Regularizer_loss`.
        """
        plain = policy.component
        if not plain:
            return
        first = self._components.setdefault(plain, policy)
        if first is not policy:
            first.component, policy.component = f"{first.name}.{plain}", f"{policy.name}.{plain}"


def _targets(policy: Any) -> Iterable[str]:
    """Return the parameters that a policy acts on, of those kinds that can meet."""
    return policy.targets() if hasattr(policy, "targets") else ()
