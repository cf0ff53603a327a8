"""One operation of a trace, as its rule sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .code_lines import lines_of_code
from .entries import Made, Operation, Read, numbers_in
from .labels import SINGLE, Plane, TensorInfo, attach, info_of, take_first
from .log import TraceLog


@dataclass
class Frame:
    """A module whose forward runs, and how often it has carried out each operation on channels itself, by line."""

    name: str
    module: nn.Module | None
    seen: Counter[Any] = field(default_factory=Counter)

    @property
    def text(self) -> str:
        """Return the dotted name and the class."""
        return f"{self.name or 'the model'} ({type(self.module).__name__})"

    def kind(self, func: Any) -> tuple[Any, ...]:
        """Return what tells the operation that is carried out now from others, in all modules of the class."""
        # By line, not by number: some blocks of a class pad or shift before, and have more operations there.
        where = (lines_of_code(), func)
        self.seen[where] += 1
        return type(self.module), *where, self.seen[where]


def tensors_given(args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors that an operation is given, in lists too."""
    found: list[Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


class TraceContext(Protocol):
    """What a call needs of the tracer that makes it."""

    log: TraceLog
    weights: Mapping[str, Tensor] | None
    layer_values: dict[Any, tuple[Tensor | None, Tensor | None, Tensor]]
    quiet: bool
    macs: int

    @property
    def frame(self) -> Frame:
        """Return the module whose forward runs."""

    def constants(self, leaf: tuple[str, int]) -> Tensor | None:
        """Return what all elements of each channel of a parameter's dimension equal; None where that is not known."""

    def label_whole(self, call: Call, rule: Callable[[], None]) -> None:
        """Label the result of a whole module that ran unseen."""


class Call:
    """An operation, its arguments and its result `out`; `emit` says which planes the result has."""

    def __init__(self, tracer: TraceContext, func: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> None:
        self.tracer = tracer
        self.log = tracer.log
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.tensors = tensors
        self.infos = [info_of(tensor) for tensor in tensors]
        # A tensor that is left in an attribute and read by nothing in this pass is for others to read: an output.
        for info in self.infos:
            info.read = True
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        self.out: Any = None
        self.same_weight: tuple[str, tuple[int, ...]] | None = None
        self.repeated: Tensor | None = None
        self._emitted: dict[int, tuple[Plane, ...]] = {}
        self._frozen = ""

    @property
    def name(self) -> str:
        """Return the operation's name, such as "aten.relu"."""
        return str(getattr(self.func, "overloadpacket", getattr(self.func, "__name__", self.func)))

    @property
    def place(self) -> str:
        """Return operation and module, for reasons."""
        return f"{self.name} in {self.tracer.frame.text}"

    @property
    def sized(self) -> bool:
        """Return whether the arguments hold sizes that a model may have hard-coded."""
        return not any(isinstance(value, Tensor) for value in self.args[1:])

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Return a positional or keyword argument."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def named(self, name: str, default: Any = None) -> Any:
        """Return an argument by its name in the operation's schema, wherever it stands in a version of torch."""
        for position, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                return self.arg(position, name, default)
        return default

    def info(self, tensor: Tensor | None) -> TensorInfo:
        """Return what is known about an input; an empty info for None."""
        return info_of(tensor) if tensor is not None else TensorInfo()

    def set_info(self, tensor: Tensor, info: TensorInfo) -> None:
        """Let `info` be what is known about a tensor that the rule itself made."""
        attach(tensor, info)

    @property
    def made(self) -> Made:
        """Return shape and planes of each result."""
        return tuple((tuple(t.shape), info_of(t).planes) for t in self.outputs())

    @property
    def numbers(self) -> tuple[float, ...]:
        """Return the numbers that the code gives."""
        return numbers_in(self.args, self.kwargs)

    def operation(self) -> Operation:
        """Return the operation as data, once."""
        frame = self.tracer.frame
        read = tuple(plane for info in self.infos for plane in info.planes)
        kind = frame.kind(self.func)
        given = self.args if self.sized else None
        return Operation(self.func, self.place, frame.name, kind, read, self.made, given, self.numbers)

    def planes(self, tensor: Tensor | None) -> tuple[Plane, ...]:
        """Return the planes of an input, with the values that still hold."""
        return self.info(tensor).current

    def outputs(self) -> list[Tensor]:
        """Return the tensors among the results."""
        out = self.out if isinstance(self.out, (list, tuple)) else (self.out,)
        return [item for item in out if isinstance(item, Tensor)]

    def emit(self, planes: Iterable[Plane], out: Tensor | None = None) -> None:
        """Say that `out` (by default the first result) has these planes."""
        target = self.outputs()[0] if out is None else out
        # A single channel cannot go (a dimension must not become 0), so it need not be followed any further.
        self._emitted[id(target)] = tuple(plane for plane in planes if plane.ids.numel() > 1)

    def freeze(self, planes: Iterable[Plane], why: str = "") -> None:
        """Note that the channels of these planes can never be removed."""
        for plane in planes:
            self._frozen = f"{self.place}{': ' if why else ''}{why}"
            self.log.freeze(plane.ids, self._frozen)

    @property
    def cause(self) -> str:
        """Return why a result without channels has none: the first cause of those that go in, or what was frozen."""
        return next((info.cause for info in self.infos if info.cause), self._frozen)

    def give_up(self, why: str) -> None:
        """Freeze everything that goes in; nothing comes out."""
        self._emitted.clear()
        for tensor in self.tensors:
            self.freeze(self.planes(tensor), why)

    def unite(self, a: Tensor, b: Tensor) -> None:
        """Make two id tensors of broadcastable shape the same channels."""
        self.log.unite(a, b, f"{self.place}: meets a tensor of fixed size")

    def collapse(self, plane: Plane, dim: int, why: str) -> Plane | None:
        """Return the plane of a result that is fixed along `dim`, where `plane` varies.

        Channels that vary along other dimensions too must go together along this one; others are frozen.
        """
        if plane.ids.shape[dim] == 1:
            return plane
        if len(plane.dims) == 1:
            self.freeze([plane], why)
            return None
        # Other dimensions still tell these channels apart, so a channel may go if it goes at every index of this one.
        first = plane.ids.narrow(dim, 0, 1)
        self.unite(plane.ids, first)
        return take_first(plane, dim).but(leaf=None, origin=None)

    def read(self, plane: Plane, layer: int | None = None, foldable: bool = False) -> None:
        """Note a sum over these channels: they may go where their value, or all the layer's weights on them, are 0."""
        value = None if plane.value is None else plane.value.reshape(-1)
        self.log.read(Read(plane.ids.reshape(-1), value, layer, foldable))

    def finish(self) -> None:
        """Attach the emitted planes to the results."""
        mutable = self.func._schema.is_mutable if hasattr(self.func, "_schema") else False
        for tensor in self.outputs():
            planes = self._emitted.get(id(tensor), ())
            source = self.infos[0] if self.infos else None
            cause = "" if planes else self.cause
            info = TensorInfo(planes, weight=self.same_weight, repeated=self.repeated, cause=cause)
            # A view shares memory with what it was made of: a write through one of them makes the values known of the
            # others void. The counter of the shared storage tells when (as autograd does it).
            if source is not None and (mutable or getattr(self.func, "is_view", False)):
                info.storage = source.storage
                info.storage.version += mutable
                info.version = info.storage.version
            attach(tensor, info)

    def weight(self, tensor: Tensor) -> Tensor | None:
        """Return the real values of a tensor that is a parameter (perhaps transposed), if values are followed."""
        known = self.info(tensor).weight
        if known is None or self.tracer.weights is None:
            return None
        real = self.tracer.weights.get(known[0])
        if real is None or real.ndim != len([axis for axis in known[1] if axis != SINGLE]):
            return None
        return real.permute([axis for axis in known[1] if axis != SINGLE]).reshape(tensor.shape)

    def known(self, plane: Plane) -> Plane:
        """Return the plane with what is known of its values, no longer that of a parameter as it is."""
        return plane.but(value=self.value_of(plane), leaf=None)

    def value_of(self, plane: Plane) -> Tensor | None:
        """Return the values of a plane's channels; for a parameter itself they are looked up."""
        if plane.value is not None or plane.leaf is None:
            return plane.value
        value = self.tracer.constants(plane.leaf)
        if value is None:
            return None
        # A view of a parameter may have its ids in another order, or only some: values are looked up by id then.
        own = self.log.ids[plane.leaf]
        whole = plane.ids.data_ptr() == own.data_ptr() and plane.ids.numel() == len(own)
        if whole and plane.ids.is_contiguous():  # its own, in their order
            return value.view(plane.ids.shape)
        return torch.where(plane.ids > 0, value[(plane.ids - int(own[0])).clamp_min(0)], torch.nan)
