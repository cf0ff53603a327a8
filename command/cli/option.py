"""Options as fields of frozen dataclasses: a field says name, spelling, type, default and help, all in one place."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import Field as DataclassField
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from potstill.compression.files.checked import CheckpointError, Field

from .option_types import Number

G = TypeVar("G", bound="Group")


def option(*flags: str, default: Any = None, kept: bool = True, **settings: Any) -> Any:
    """Declare an option as a field of a group; its name is the field's.

    Args:
        flags: its spellings.
        default: its value where it is not given; True or False make it a switch.
        kept: whether it says how the run is, so that a run which goes on has it too.
        settings: more for `ArgumentParser.add_argument`: type, choices, metavar, help (a text, or what returns it).
    """
    if isinstance(default, bool):
        settings["action"] = "store_false" if default else "store_true"
    return field(default=default, metadata={"flags": flags, "kept": kept, "settings": settings})


of_this_call = partial(option, kept=False)
"""Declare an option that says what this call does and not how its run is."""


@dataclass(frozen=True)
class Group:
    """Options that belong together; `TITLE` heads them in the help."""

    TITLE: ClassVar[str] = ""

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser, only: str | None = None) -> None:
        """Add the options to a parser, or the only one of that name."""
        added = parser.add_argument_group(cls.TITLE)
        for item in cls._options():
            settings = dict(item.metadata["settings"], dest=item.name, default=item.default)
            if isinstance(item.default, tuple):
                settings["default"] = list(item.default)
            if callable(settings.get("help")):
                settings["help"] = settings["help"]()
            if only in (None, item.name):
                added.add_argument(*item.metadata["flags"], **settings)

    @classmethod
    def of(cls: type[G], parsed: argparse.Namespace) -> G:
        """Return the group with what a parser has found."""
        found = {item.name: getattr(parsed, item.name) for item in fields(cls)}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})

    @classmethod
    def stored(cls, state: Mapping[str, Field]) -> dict[str, Any]:
        """Return the options that a checkpoint holds, each checked like those of the command line.

        Raises:
            CheckpointError: the command line would not take one.
        """
        return {o.name: _taken(o, state[o.name]) for o in cls._options() if o.metadata["kept"] and o.name in state}

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the group: plain data by name."""
        return {item.name: _plain(getattr(self, item.name)) for item in self._options() if item.metadata["kept"]}

    @classmethod
    def _options(cls) -> list[DataclassField[Any]]:
        """Return the fields that are options."""
        return [item for item in fields(cls) if "flags" in item.metadata]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _taken(item: DataclassField[Any], value: Field) -> Any:
    """Return a stored value as its option takes it."""
    if value.value is None and item.default is None:
        return None
    if isinstance(item.default, bool):
        return value.flag()
    settings = item.metadata["settings"]
    kind = settings.get("type", str)
    try:
        return kind.checked(value.number()) if isinstance(kind, Number) else kind(value.text(settings.get("choices")))
    except argparse.ArgumentTypeError as error:
        raise CheckpointError(f"{value.path}: {error}") from None
