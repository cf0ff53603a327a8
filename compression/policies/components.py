"""What the parts of the loss are called that policies add to it."""

from __future__ import annotations

from collections.abc import Iterable

from .base import ScheduledTrainingPolicy


def tell_apart(others: Iterable[ScheduledTrainingPolicy], policy: ScheduledTrainingPolicy) -> None:
    """Put the policies' names before the names of loss components that would be the same.

    Distiller called them all by their class: `L1Regularizer_loss` stays where there is one, two of them become
    `a.L1Regularizer_loss` and `b.L1Regularizer_loss`.
    """
    plain = policy.component
    if not plain:
        return
    alike = [other for other in others if other.component in (plain, f"{other.name}.{plain}")]
    for one in (*alike, policy) if alike else ():
        one.component = f"{one.name}.{plain}"
