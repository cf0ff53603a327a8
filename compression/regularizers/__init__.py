"""Loss terms that draw weights or gates to zero. A new one is a class with `@register` in a file here."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..declare.registry import registered
from .base import Ending, Regularizer, Site

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Ending", "Regularizer", "Site"]


def __getattr__(name: str) -> Any:
    """Give a class by the name that schedules use, wherever its file is."""
    if name in registered("regularizers"):
        return registered("regularizers")[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
