"""What a mistyped name may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

COUNT = 3


def nearest(text: str, names: Sequence[str], cutoff: float = 0.6) -> list[str]:
    """At most three names: those that begin with what was typed, shortest first, then those that are spelled alike."""
    typed = text.lower()
    begun = sorted((name for name in names if typed and name.lower().startswith(typed)), key=len)
    return list(dict.fromkeys([*begun, *get_close_matches(typed, names, COUNT, cutoff)]))[:COUNT]
