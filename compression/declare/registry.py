"""The classes that a schedule can name, by section.

A class enters with a decorator and is from then on known to schedules, to the dry run, to the tests that walk the
registry and to the editor schema::

    @register("pruners")
    class MyPruner(Pruner): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

SECTIONS = ("pruners", "regularizers", "quantizers", "lr_schedulers", "extensions")

C = TypeVar("C", bound=type)
_classes: dict[str, dict[str, type]] = {section: {} for section in SECTIONS}


def register(section: str, *names: str) -> Callable[[C], C]:
    """Make a class nameable in a section of a schedule, under `names` or else under its own name.

    Raises:
        ValueError: the section does not exist, or the name is taken by another class.
    """
    if section not in _classes:
        raise ValueError(f"no section {section!r}: one of {', '.join(SECTIONS)}")

    def enter(cls: C) -> C:
        for name in names or (cls.__name__,):
            taken = _classes[section].get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"{section}: {name} is already {taken.__module__}.{taken.__qualname__}")
            _classes[section][name] = cls
        return cls

    return enter


def registered(section: str) -> Mapping[str, type]:
    """Return the classes of a section by name, read-only."""
    return MappingProxyType(_classes[section])
