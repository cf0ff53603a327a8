"""Pruners: score x unit x rate, one family a file. A new one is a class with `@register("pruners")` in a file here."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..declare.registry import registered
from .base import Pruner, View

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Pruner", "View"]


def __getattr__(name: str) -> Any:
    """Give a class by the name that schedules use, wherever its file is."""
    if name in registered("pruners"):
        return registered("pruners")[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
