"""The formats that `--export NAME` writes after a run, and `--export-NAME [FILE]` instead of one.

A format is one function with a decorator, in a file of this folder or in a plugin::

    @register_export("mine", "model.mine", help="in my own format")
    def export_mine(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner | None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

Runner = Callable[[Tensor], Tensor]
"""What runs a written file: images of shape (N, C, H, W) -> logits (N, classes), on the CPU."""
Write = Callable[[nn.Module, Tensor, Path, Mapping[str, str]], "Runner | None"]
TOLERANCE = 1e-4
"""Largest difference to torch, relative to the largest output: other kernels round otherwise."""


@dataclass(frozen=True)
class Export:
    """A format.

    Attributes:
        write: writes a network in eval mode on the CPU and returns what runs the file, None if that is not possible
            here. It gets the network, images of shape (N, C, H, W) with N >= 2, the path, and texts about the network
            by name (classes, mean, std, input_shape, ...) for formats that hold such.
        file: what is written where no file is named.
        help: completes "write the network ... and stop".
        lossy: the file computes something near to the network, such as in 8 bits: its accuracy says how near. It is
            made with images of the data set, so that only a run writes it.
        needs: the packages that it imports.
    """

    write: Write
    file: Path
    help: str
    lossy: bool = False
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]


_exports: dict[str, Export] = {}


def register_export(
    name: str, file: str, *, help: str, lossy: bool = False, needs: Sequence[str] = ()
) -> Callable[[Write], Write]:
    """Make a format known to the command line.

    Args:
        name: of the format.
        file: written where the command line names none.
        help: completes "write the network ... and stop".
        lossy: the file does not compute the very same (see `Export`).
        needs: packages without which it cannot be written: said before a run begins.

    Raises:
        ValueError: the name is taken by another function.
    """

    def enter(write: Write) -> Write:
        taken = _exports.get(name)
        if taken is not None and taken.write.__module__ != write.__module__:
            raise ValueError(f"the export {name!r} is already that of {taken.write.__module__}")
        _exports[name] = Export(write, Path(file), help, lossy, tuple(needs))
        return write

    return enter


def exports() -> Mapping[str, Export]:
    """Return the formats by name, read-only."""
    return MappingProxyType(_exports)
