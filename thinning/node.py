"""What is known about one tensor during a trace."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .plane import Plane

ATTRIBUTE = "_potstill_node"


@dataclass
class Cell:
    """The memory that a tensor and its views share.

    `version` counts the writes; `uniform`: all elements are alike, `value`: what all are known to equal.
    """

    version: int = 0
    uniform: bool = False
    value: float | None = None


@dataclass
class Node:
    """The planes of a tensor; `weight` names the parameter that it is, with its dimensions in the order `axes`.

    `repeated`: the matrix, a parameter, that each matrix of this batch of matrices is. `read`: an operation took it.
    """

    planes: tuple[Plane, ...] = ()
    cell: Cell = field(default_factory=Cell)
    version: int = 0
    weight: tuple[str, tuple[int, ...]] | None = None
    repeated: Tensor | None = None
    read: bool = False

    @property
    def uniform(self) -> bool:
        """All elements are alike, so that any slice may be removed: a fresh `zeros`, `ones` or random tensor."""
        return self.cell.uniform and not self.planes

    def along(self, dim: int) -> Plane | None:
        """The plane that varies along `dim`."""
        return next((plane for plane in self.planes if plane.ids.shape[dim] > 1), None)

    @property
    def current(self) -> tuple[Plane, ...]:
        """The planes, their values forgotten where the memory was written to through another view."""
        if self.version == self.cell.version:
            return self.planes
        return tuple(plane.but(value=None, origin=None) for plane in self.planes)


def node_of(tensor: Tensor) -> Node:
    """The node of a tensor; a fresh one without planes if it has none."""
    node = tensor.__dict__.get(ATTRIBUTE)
    if node is None:
        node = Node()
        attach(tensor, node)
    return node


def attach(tensor: Tensor, node: Node) -> None:
    """Let `node` be what is known about `tensor`."""
    setattr(tensor, ATTRIBUTE, node)
