"""Python's search for objects that only point at each other."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 100_000
"""Objects that are made between two searches; by default 700 to 2,000."""


@contextmanager
def rare_collection() -> Iterator[None]:
    """Let Python search more rarely: traces make many small objects, which are freed without it."""
    before = gc.get_threshold()
    # Zero turns the search off: a user's choice that stays.
    gc.set_threshold(max(before[0], YOUNG) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
