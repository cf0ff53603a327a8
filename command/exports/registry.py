"""The formats that `--export-<name> [FILE]` writes.

A format is one function with a decorator, in a file of this folder or in a plugin::

    @register_export("mine", "model.mine", help="in my own format")
    def export_mine(model: nn.Module, example: Tensor, path: Path) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

Write = Callable[[nn.Module, Tensor, Path], None]


@dataclass(frozen=True)
class Export:
    """A format: what writes it, the file that it writes where none is named, and a line of help."""

    write: Write
    file: Path
    help: str


_exports: dict[str, Export] = {}


def register_export(name: str, file: str, *, help: str) -> Callable[[Write], Write]:
    """Make a format known to the command line as `--export-<name>`.

    Args:
        name: of the format.
        file: written where the command line names none.
        help: completes "write the network ... and stop".

    Raises:
        ValueError: the name is taken by another function.
    """

    def enter(write: Write) -> Write:
        taken = _exports.get(name)
        if taken is not None and taken.write.__module__ != write.__module__:
            raise ValueError(f"the export {name!r} is already that of {taken.write.__module__}")
        _exports[name] = Export(write, Path(file), help)
        return write

    return enter


def exports() -> Mapping[str, Export]:
    """Return the formats by name, read-only."""
    return MappingProxyType(_exports)
