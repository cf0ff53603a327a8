"""Integers beside a tensor: which channel each element belongs to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Shape = Sequence[int]
NOWHERE: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Plane:
    """One family of channels of a tensor.

    `ids` has the tensor's number of dimensions and is stored compactly: size 1 along every dimension on which the
    channel does not depend. Id 0 is "no channel". A tensor may have several planes (tokens and features, say); no
    dimension varies in two of them. `value` (shape of `ids`, float64) is what all elements of a channel are known to
    equal, NaN where that is not known; None for "nowhere known". `leaf` is the parameter dimension that the integers
    come from as they are, `origin` the layer call whose output this still is, `sources` the layer calls that make it,
    `operand` the number of the operand that it comes from while operands are combined. `copies`: channels that are
    copies of one (a key for all queries), as many as are read.
    """

    ids: Tensor
    value: Tensor | None = None
    leaf: tuple[str, int] | None = None
    origin: int | None = None
    sources: frozenset[int] = NOWHERE
    operand: int = 0
    copies: bool = False

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Return the dimensions along which the channel varies."""
        return tuple(dim for dim, size in enumerate(self.ids.shape) if size > 1)

    def but(self, **changes: Any) -> Plane:
        """Return a copy with these fields changed."""
        return replace(self, **changes)

    def lift(self, ndim: int) -> Plane:
        """Return the same plane with leading dimensions of size 1, as broadcasting adds them."""
        extra = ndim - self.ids.ndim
        return self if extra <= 0 else self.map(lambda t: t.reshape((1,) * extra + tuple(t.shape)))

    def map(self, change: Callable[[Tensor], Tensor]) -> Plane:
        """Return the plane whose ids and value are changed by the same function."""
        value = None if self.value is None else change(self.value)
        return replace(self, ids=change(self.ids), value=value)


def firsts(ids: Tensor, dims: Iterable[int]) -> Tensor:
    """Return the ids at the first index of some dimensions, which stay as dimensions of size 1."""
    for dim in dims:
        ids = ids.narrow(dim, 0, 1)
    return ids


def may_count_channels(tensor: Tensor) -> bool:
    """Return whether dimensions of a parameter or buffer may be channels: integers are indices, of fixed size."""
    return tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool


def same_value(a: Tensor, b: Tensor) -> Tensor:
    """Return where two tensors of values agree, NaN (unknown) agreeing with itself."""
    return (a == b) | (a.isnan() & b.isnan())


def squash(plane: Plane, dims: Sequence[int]) -> Plane:
    """Drop those of `dims` along which the ids are constant; a value that differs along such a dimension is unknown."""
    for dim in dims:
        ids = plane.ids
        if ids.shape[dim] > 1 and bool((ids == ids.narrow(dim, 0, 1)).all()):
            plane = take_first(plane, dim)
    return plane


def take_first(plane: Plane, dim: int) -> Plane:
    """Keep one index of `dim`; values that differ along it are unknown."""
    value = plane.value
    if value is not None:
        first = value.narrow(dim, 0, 1)
        known = same_value(value, first).all(dim, keepdim=True)
        value = torch.where(known, first, torch.nan)
    return plane.but(ids=plane.ids.narrow(dim, 0, 1), value=value)


def groups(old: Shape, new: Shape) -> Iterator[tuple[range, range]]:
    """Yield the independent pieces of a reshape: ranges of old dimensions and the new dimensions they become."""
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        # A piece ends where both sides have as many elements; within it the smaller side takes one dimension more.
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        yield range(a, i), range(b, j)


def reshape(plane: Plane, old: Shape, new: Shape) -> Plane:
    """Return the plane of `tensor.reshape(new)`; only the part of the shape in which the ids vary is spelled out."""
    before: list[int] = []
    after: list[int] = []
    split: list[int] = []
    for olds, news in groups(old, new):
        # Sizes of pieces in which nothing varies need not be spelled out: their product would be an allocation.
        if all(plane.ids.shape[dim] == 1 for dim in olds):
            before += [1] * len(olds)
            after += [1] * len(news)
        else:
            before += [old[dim] for dim in olds]
            after += [new[dim] for dim in news]
            split += [dim for dim in news if new[dim] > 1] if len(news) > 1 else []
    shaped = plane.map(lambda t: t.expand(before).reshape(after))
    return squash(shaped, split) if split else shaped


def as_view(plane: Plane, shape: Shape, function: Callable[[Tensor], Tensor]) -> Plane:
    """Return the plane of any view of a tensor of shape `shape`: the same view of the integers, expanded at no cost."""
    viewed = plane.map(lambda t: function(t.contiguous().expand(tuple(shape))))
    # Stride 0 says that the function only repeated along this axis: kept compact, else planes would grow to the size of
    # activations (a ResNet-50 at 224 pixels has 11 million elements an image) and every union with them.
    for dim, (size, stride) in enumerate(zip(viewed.ids.shape, viewed.ids.stride(), strict=True)):
        if size > 1 and stride == 0:
            viewed = viewed.map(lambda t, dim=dim: t.narrow(dim, 0, 1))  # type: ignore[misc]
    return viewed


def numel(shape: Shape) -> int:
    """Return the number of elements of a tensor of this shape."""
    return math.prod(shape)


# An attribute of the tensor object and no table by id: ids of tensors that are gone are used again at once, and a table
# that keeps tensors alive would keep all activations.
ATTRIBUTE = "_potstill_info"
SINGLE = -1
"""A dimension of size 1 that a view of a parameter has and the parameter has not."""


@dataclass
class Storage:
    """The memory that a tensor and its views share.

    `version` counts the writes; `uniform`: all elements are alike, `value`: what all are known to equal.
    """

    version: int = 0
    uniform: bool = False
    value: float | None = None


@dataclass
class TensorInfo:
    """The planes of a tensor; `weight` names the parameter that it is, with its dimensions in the order `axes`.

    `repeated`: the matrix, a parameter, that each matrix of this batch of matrices is. `read`: an operation took it.
    `whole`: the tensor of which it is a part, where torch does not know. `numbers`: the integers that it holds, where
    the model's code says them. `cause`: why it has no channels, where that is known.
    """

    planes: tuple[Plane, ...] = ()
    storage: Storage = field(default_factory=Storage)
    version: int = 0
    weight: tuple[str, tuple[int, ...]] | None = None
    repeated: Tensor | None = None
    read: bool = False
    whole: Tensor | None = None
    numbers: Tensor | None = None
    cause: str = ""

    @property
    def uniform(self) -> bool:
        """Return whether all elements are alike, and any slice may go: a fresh `zeros`, `ones` or random tensor."""
        return self.storage.uniform and not self.planes

    def along(self, dim: int) -> Plane | None:
        """Return the plane that varies along `dim`."""
        return next((plane for plane in self.planes if plane.ids.shape[dim] > 1), None)

    @property
    def current(self) -> tuple[Plane, ...]:
        """Return the planes, their values forgotten where the memory was written to through another view."""
        if self.version == self.storage.version:
            return self.planes
        return tuple(plane.but(value=None, origin=None) for plane in self.planes)


def info_of(tensor: Tensor) -> TensorInfo:
    """Return the info of a tensor; a fresh one without planes if it has none."""
    info = tensor.__dict__.get(ATTRIBUTE)
    if info is None:
        info = TensorInfo()
        attach(tensor, info)
    return info


def attach(tensor: Tensor, info: TensorInfo) -> None:
    """Let `info` be what is known about `tensor`."""
    setattr(tensor, ATTRIBUTE, info)
