"""Runs a model once while integers flow beside its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..macs import macs_of
from ..running.copies import named_tensors
from ..running.default_device import on_cpu
from ..running.fast_meta import execute
from .call import Call, tensors_given
from .constants import real_values
from .deviation import DeviationError, UnequalRowsError
from .entries import Step
from .labels import Storage, TensorInfo, attach, info_of, may_count_channels
from .log import TraceLog
from .registry import Rule, rule_of
from .replay import Replay
from .rules import buffers, elementwise, fallback, recurrent
from .values_read import READS
from .watcher import Watcher

MISUNDERSTOOD = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, StopIteration)
FREEZES_ON_ERROR = True
"""Whether an error in a rule freezes what the operation touches: right for users, whose model must be thinned all the
same. The tests of this package switch it off, since a rule that fails would only remove less."""


class RuleError(BaseException):
    """An error in a rule while `FREEZES_ON_ERROR` is off; no handler of a model's own errors takes it for one."""


class Tracer(Watcher):
    """Gives every parameter and buffer fresh integers and applies the rule of each operation that is carried out.

    `weights` are the real tensors (for values); without them no value is tracked. With `replay` the integers of the
    parameters are given, and each operation's result is compared with what the first run had.
    """

    def __init__(
        self, log: TraceLog, weights: Mapping[str, Tensor] | None = None, replay: Replay | None = None
    ) -> None:
        super().__init__()
        self.log = log
        self.weights = weights
        self.replay = replay
        self.quiet = False
        self.macs = 0
        self.meta = False
        self.touched: set[str] = set()
        self.known: set[str] | None = None
        self.layer_values: dict[Any, tuple[Tensor | None, Tensor | None, Tensor]] = {}
        self._converted: dict[int, tuple[Tensor, Tensor]] = {}
        self._constants: dict[tuple[str, int], Tensor | None] = {}

    def adopt(self, model: nn.Module) -> None:
        """Give the parameters and buffers of `model` (a copy) their integers."""
        self.watch(model)
        tensors = named_tensors(model)
        self.meta = any(tensor.is_meta for tensor in tensors.values())
        # What an earlier run has put into a place that was empty (a table made on first use) is no state of the model.
        self.known = set(tensors) if self.known is None else self.known
        tensors = {name: tensor for name, tensor in tensors.items() if name in self.known}
        for name, tensor in tensors.items():
            attach(tensor, self._leaf(name, tensor))
        # Last: it replaces the forward methods of modules that have their integers by now.
        recurrent.intercept(self, model)

    def _leaf(self, name: str, tensor: Tensor) -> TensorInfo:
        planes = self.log.planes_of(name, tensor) if may_count_channels(tensor) else ()
        # a scale or shift of one element is a constant to all channels that meet it
        known = self.weights.get(name) if self.weights is not None and tensor.numel() == 1 else None
        value = None if known is None or not known.is_floating_point() else float(known.detach())
        return TensorInfo(planes, Storage(value=value), weight=(name, tuple(range(tensor.ndim))))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry the operation out and let its rule label the result."""
        kwargs = kwargs or {}
        if self.quiet:
            out = func(*args, **kwargs)
            self.macs += macs_of(func, args, out)
            return out
        self.running = func
        tensors = tensors_given(args, kwargs)
        # A constant that the forward pass makes lies on the CPU, since the code names no device or names that of its
        # inputs: on the meta device it would not mix with them, though it does in a real run.
        if self.meta and self._mixed(tensors):
            args, kwargs = tree_map_only(Tensor, self._to_meta, (args, kwargs))
            tensors = tensors_given(args, kwargs)
        if func in READS:
            self.reads(*tensors)
        call = Call(self, func, args, kwargs, tensors)
        # Only operations on channels are compared: masks and positions are computed in other ways for other sizes.
        if self.replay is not None and _labelled(call) and not _takes_all(call):
            self.replay.begin(call.func, self.frame.name)
        call.out = execute(func, args, kwargs)
        if self.replay is not None:
            self.replay.values.follow(tensors, call.outputs())
        self.macs += macs_of(func, args, call.out)
        noted = len(self.log.operations)
        self._label(call)
        if self.replay is None:
            self.log.sequence.append(Step(func, call.made, noted if len(self.log.operations) > noted else None))
        self.running = None
        return call.out

    def reads(self, *tensors: Tensor) -> None:
        """Note that the code reads numbers of tensors."""
        if self.replay is not None:
            self.replay.values.read(*tensors)

    @staticmethod
    def _mixed(tensors: list[Tensor]) -> bool:
        return len({t.device.type == "meta" for t in tensors}) > 1

    def _to_meta(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta":
            return tensor
        whole = tensor._base if tensor._is_view() else None
        if whole is not None:  # what is written into a part is written into the whole
            return buffers.part_of(self._to_meta(whole), tensor)
        if id(tensor) not in self._converted:
            converted = torch.empty_like(tensor, device="meta")
            known = info_of(tensor)
            numbers = None if tensor.is_floating_point() or tensor.is_complex() else tensor
            storage = Storage(uniform=known.uniform, value=known.storage.value)
            attach(converted, TensorInfo(storage=storage, numbers=numbers))
            self._converted[id(tensor)] = (tensor, converted)
        return self._converted[id(tensor)][1]

    def constants(self, leaf: tuple[str, int]) -> Tensor | None:
        """Return what all elements of each channel of a parameter's dimension equal, NaN where they differ."""
        if self.weights is None or leaf[0] not in self.weights or not self.weights[leaf[0]].numel():
            return None
        if leaf not in self._constants:
            real = self.weights[leaf[0]].detach()
            if real.ndim == 1:
                value = real_values(real).cpu()
            else:
                flat = real.movedim(leaf[1], 0).flatten(1)
                value = torch.where((flat == flat[:, :1]).all(1), real_values(flat[:, 0]), torch.nan).cpu()
            # Most weights are constant along nothing: None spares all who ask from handling a tensor of NaN.
            self._constants[leaf] = None if bool(value.isnan().all()) else value
        return self._constants[leaf]

    @on_cpu
    def _label(self, call: Call) -> None:
        labelled = _labelled(call)
        self.touched.update(info.weight[0] for info in call.infos if info.weight is not None)
        if labelled:
            try:
                _rule(call.func)(call)
            except UnequalRowsError as error:
                raise DeviationError(0 if self.replay is None else self.replay.step, str(error)) from error
            except MISUNDERSTOOD as error:
                if not FREEZES_ON_ERROR:
                    raise RuleError(f"{call.place}: {type(error).__name__}: {error}") from error
                # A call that the rule's author did not think of: what it touches stays, and the reason says so.
                call.give_up(f"the rule does not understand this call ({type(error).__name__}: {str(error)[:80]})")
            call.finish()
            fallback.freshen(call)
            if not _takes_all(call):
                self._remember(call)
        else:
            fallback.unlabelled(call)

    def _remember(self, call: Call) -> None:
        if self.replay is not None:
            self.replay.end(call.made, call.numbers)
        else:
            self.log.operation(call.operation())

    @on_cpu
    def label_whole(self, call: Call, rule: Callable[[], None]) -> None:
        """Label the result of a whole module that ran unseen."""
        self.touched.update(info.weight[0] for info in call.infos if info.weight is not None)
        if self.replay is not None:
            self.replay.begin(call.func, self.frame.name)
            self.replay.values.follow(call.tensors, call.outputs())
        rule()
        self._remember(call)


def _labelled(call: Call) -> bool:
    """Return whether channels go into an operation, or begin in it."""
    return any(info.planes for info in call.infos) or buffers.joins_fresh(call.func, call.args)


def _takes_all(call: Call) -> bool:
    """Return whether this is a slice of everything."""
    # torch 2.6 leaves `x[:, :16]` out where there are 16, and carries it out where 14 are left: no other path for that.
    if getattr(call.func, "overloadpacket", None) is not torch.ops.aten.slice:
        return False
    given = list(call.args[1:])
    dim, start, end, step = given + [0, None, None, 1][len(given) :]
    return not start and step == 1 and (end is None or end >= call.args[0].shape[dim])


def _rule(operation: Any) -> Rule:
    found = rule_of(operation)
    if found is None:
        found = elementwise.elementwise if elementwise.is_pointwise(operation) else fallback.fallback
    return found
