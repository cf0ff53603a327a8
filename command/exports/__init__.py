"""Exports of a network to other formats, a file each: a function with `@register_export` in a file here is found."""

from importlib import import_module
from pkgutil import iter_modules

from .registry import Export, Runner, exports, register_export

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Export", "Runner", "exports", "register_export"]
