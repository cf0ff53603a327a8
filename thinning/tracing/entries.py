"""The entries of a trace's log: calls of layers, sums over channels, splits, norms, operations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from .labels import Plane


@dataclass
class LayerCall:
    """One call of a convolution or linear layer (see `graph.Layer`); ids as they were issued."""

    weight: str
    in_dim: int
    out_dim: int
    groups: int
    positions: float
    in_ids: Tensor
    out_ids: Tensor
    depthwise: bool = False
    again: bool = False
    bias: str | None = None
    norm: str | None = None
    chain: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Read:
    """Channels that a sum over channels reads: exact to remove where `value` is 0 or the layer's weights are.

    `layer` is the index of the layer call, None where the weights are unknown. `foldable`: a constant may move into
    the layer's bias (nothing is padded). `sums`: what the sum makes where only one axis of several is summed; it is one
    channel with what it reads unless removal follows that axis.
    """

    ids: Tensor
    value: Tensor | None
    layer: int | None = None
    foldable: bool = False
    sums: Tensor | None = None


FREE = -1


@dataclass(frozen=True, eq=False)
class Link:
    """`shared` (broadcast to the shape of `ids`) serves all channels along an axis on which only `ids` vary.

    A table of sines for all heads, keys for several queries: whole heads may go without it; what goes at the same
    position of all heads takes its element along. `why` is the number of a reason.
    """

    ids: Tensor
    shared: Tensor
    why: int


@dataclass(frozen=True)
class AttributeCount:
    """An integer attribute of a module (or element `index` of it) that counts the channels `ids`."""

    module: str
    name: str
    index: int | None
    ids: Tensor


@dataclass(frozen=True, eq=False)
class SplitAxis:
    """An axis of channels that was viewed as several; removal has to follow one of them (`along`, None: the last).

    `choices` are the axes among which it may be chosen by what is dead. `along` FREE: none, to see what would be dead.
    `shared`: what serves all of a row. `inexact`: the number of the reason why only the first choice is exact.
    `count`: the attribute that counts the channels along the first choice.
    """

    ids: Tensor
    step: int
    along: int | None = None
    choices: tuple[int, ...] = ()
    shared: Link | None = None
    inexact: int | None = None
    count: AttributeCount | None = None

    @property
    def first(self) -> bool:
        """Return whether the first choice is followed."""
        return self.along is not None and self.along in self.choices[:1]

    @property
    def links(self) -> tuple[Link, ...]:
        """Return what serves all of a row, with the rows as they are now."""
        return () if self.shared is None else (replace(self.shared, ids=self.ids),)


@dataclass(frozen=True)
class MeanOver:
    """A mean over the channels `ids`, whose values are known as far as `value` says, in a module.

    `ndim` and `dim` say of how many dimensions they are which.
    """

    ids: Tensor
    value: Tensor | None
    module: str
    why: str
    ndim: int
    dim: int


@dataclass(frozen=True)
class Rescale:
    """A norm over the channels `ids`: its `weight` (to which it adds `offset`) and `attribute` make up for fewer.

    Of C channels C' are left: the weight is multiplied by C/C' to the power `power`, the attribute by C/C'.
    """

    module: str
    weight: str
    attribute: str
    offset: float
    power: float
    ids: Tensor


@dataclass(frozen=True)
class WeightNorm:
    """Weights g v / |v|: `ids` are channels of v that each norm adds up, `value` what is known of them.

    `magnitude` and `directions` are the names of g and v, `dim` the one that has norms of its own.
    """

    magnitude: str
    directions: str
    dim: int
    ids: Tensor
    value: Tensor | None


Made = tuple[tuple[tuple[int, ...], tuple[Plane, ...]], ...]
"""Shape and planes of each result of an operation."""


def numbers_in(args: Any, kwargs: Any) -> tuple[float, ...]:
    """Return the numbers that code gives to an operation, sizes and dimensions apart."""
    return tuple(value for value in (*args, *kwargs.values()) if type(value) is float)


@dataclass(frozen=True)
class Operation:
    """One operation on labelled tensors, for the comparison with a second run.

    `kind` is the same for the same operation of two modules of one class; `numbers` are those that the code gives.
    """

    func: Any
    place: str
    module: str
    kind: tuple[Any, ...]
    read: tuple[Plane, ...]
    made: Made
    arguments: Any
    numbers: tuple[float, ...] = ()


class Step(NamedTuple):
    """One operation of the first run: the number of its entry among the operations on channels, None of others."""

    func: Any
    made: Made
    operation: int | None
