"""What a policy wants of a parameter or of the network, as data for an account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .structures import Group


@dataclass(frozen=True)
class Claim:
    """What a policy wants of one parameter.

    Attributes:
        group: how it splits the parameter into structures; None where it hides weight by weight.
        asked: how many are to be hidden; None where that follows from the values of weights.
        why: why fewer are hidden than asked, where the policy knows it.
    """

    group: Group | None = None
    asked: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Goal:
    """What a policy wants of the network as a whole.

    Attributes:
        unit: what is counted; `microseconds` of a forward pass.
        of: how many the network had.
        asked: how many of them thinning is to remove.
        left: how many stay, where the policy has measured it; None where thinning knows.
    """

    unit: Literal["parameters", "multiply-adds", "microseconds"]
    of: int
    asked: int
    left: int | None = None
