"""Registering again: a plugin may be loaded twice in one process."""

from __future__ import annotations

from typing import Any


def is_same(first: Any, second: Any) -> bool:
    """Return whether two functions are one, or come from the same line of a file that was imported twice."""
    return first is second or _origin(first) == _origin(second)


def _origin(function: Any) -> tuple[str, Any]:
    return function.__module__, getattr(function, "__qualname__", function)
