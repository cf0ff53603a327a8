"""What a mistyped name may have meant: of networks, data sets, parameters, schedules and what stands in them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 200
"""Longer words are no names. The comparison takes time by the square of the length, and a stranger's file has them."""
MOST = 2_000_000
"""Pairs of characters that one word is compared by, some 0.2 s: those of 5,000 names of 20 characters with another."""


def near_names(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return the names that begin with what was typed, shortest first, then those most like it, all cases alike."""
    typed = word.lower()
    names = list(names)
    begun = sorted((name for name in names if typed and name.lower().startswith(typed)), key=len)
    return list(dict.fromkeys([*begun, *spelled_like(word, names, count)]))[:count]


def spelled_like(word: str, names: Iterable[str], count: int = 1, likeness: float = 0.6) -> list[str]:
    """Return the names most like a word, best first, upper and lower case being alike; `likeness` is at most 1."""
    if len(word) > LONGEST:
        return []
    spellings: dict[str, str] = {}
    left = MOST
    for name in names:
        left -= len(word) * len(name)
        if left < 0:
            break
        spellings.setdefault(name.lower(), name)
    return [spellings[found] for found in get_close_matches(word.lower(), spellings, count, likeness)]


def did_you_mean(word: str, names: Iterable[str], count: int = 1) -> str:
    """Return ` (did you mean …?)` with the names nearest to the word, or nothing."""
    return as_question(near_names(word, names, count))


def as_question(found: list[str]) -> str:
    """Return ` (did you mean … or …?)`, or nothing where nothing was found."""
    return f" (did you mean {' or '.join(found)}?)" if found else ""
