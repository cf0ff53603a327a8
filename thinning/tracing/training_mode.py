"""Evaluation and training: whether a model does in one mode what it does in the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves, tree_map_only

from ..running.copies import kept_by, named_tensors, training
from ..running.fast_meta import execute
from ..running.index_lists import IndexLists
from ..running.inputs import batch_of, run, tensors_of
from ..running.run import plain_run
from .call import Frame
from .code_lines import lines_of_code
from .watcher import Watcher, watched

aten = torch.ops.aten

LIKE = {aten.empty_like, aten.rand_like, aten.randn_like}
DRAWN = {aten.empty, aten.new_empty, aten.rand, aten.randn, *LIKE}
SCALED = {aten.mul, aten.mul_, aten.div, aten.div_}
LABEL = "_potstill_label"


@dataclass(frozen=True)
class Noise:
    """The label of random numbers: one for each element of the tensor of label `like`; None: one for each sample."""

    like: Any


class Walk(Watcher):
    """Carries operations out and lists the path: what code that is not torch's own does, and with what.

    That is the modules entered, and each operation with its lines of code, its numbers and what it reads: parameters
    and buffers by name, other tensors by where on the path they were made. Of torch's own code it is known what
    training changes: its modules only read and make tensors. Noise that has one number for each sample, or one for each
    element of the tensor that it scales, is no part of the path: it has no channels of its own.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.watch(model)
        self.path: list[Any] = []
        self._reads: list[list[Any]] = [[]]
        given: dict[int, Any] = {id(tensor): ("input", n) for n, tensor in enumerate(tensors_of(inputs))}
        self._batch = batch_of(inputs)
        self._known = given | {id(tensor): name for name, tensor in named_tensors(model).items()}

    def label(self, tensor: Tensor) -> Any:
        """Return what a tensor is on the path; of a constant its shape."""
        return self._known.get(id(tensor)) or getattr(tensor, LABEL, tuple(tensor.shape))

    def entered(self, frame: Frame) -> None:
        """Note the module."""
        super().entered(frame)
        self.path.append(frame.name)
        self._reads.append([])

    def left(self, module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        """Label what a module of torch's own has made."""
        super().left(module, given, made)
        self._reads.pop()
        new = [tensor for tensor in tensors_of(made) if id(tensor) not in self._known and not hasattr(tensor, LABEL)]
        if isinstance(module, _DropoutNd) and given:  # in evaluation it returns what it was given
            self._made(new, self.label(given[0]))
        else:
            self._note(("made", len(new)), new)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out and note it."""
        out = execute(func, args, kwargs or {})
        given, lines = tree_leaves((args, kwargs)), lines_of_code()
        if func is aten.detach.default:  # where gradients need a result, torch keeps it so
            self._made([out], self.label(args[0]))
        elif lines:
            self._operation(getattr(func, "overloadpacket", func), lines, given, tensors_of(out))
        elif not isinstance(self.frame.module, _DropoutNd):
            read = [v for v in given if isinstance(v, Tensor) and (id(v) in self._known or hasattr(v, LABEL))]
            for label in map(self.label, read):  # once: gradients may need a copy
                if label not in self._reads[-1] and not _counts_batches(label):
                    self._reads[-1].append(label)
                    self.path.append(label)
        return out

    def _operation(self, func: Any, lines: Any, given: list[Any], made: list[Tensor]) -> None:
        tensors = [value for value in given if isinstance(value, Tensor)]
        read = [self.label(tensor) for tensor in tensors]
        noise = next((label for label in read if isinstance(label, Noise)), None)
        channels = [label for label in read if not isinstance(label, Noise)]
        if "batch_norm" in str(func):  # another operation in training, of the same channels
            self._note(("batch_norm", channels), made)
        elif func in LIKE:
            self._made(made, Noise(channels[0] if channels else None))
        elif func in DRAWN and all(self._of_samples(tensor.shape) for tensor in made):
            self._made(made, Noise(None))
        elif noise is not None and not channels and all(tensor.shape == tensors[0].shape for tensor in made):
            self._made(made, noise)  # drawn, rounded, divided by what is kept
        elif func is aten.native_dropout or self._scales(func, noise, channels, tensors):
            self._made(made[:1], channels[0])
        elif not (channels and _counts_batches(channels[0])):
            numbers = [value for value in given if not isinstance(value, Tensor)]
            self._note((func, lines, read, numbers), made)

    def _of_samples(self, shape: Sequence[int]) -> bool:
        return len(shape) > 1 and shape[0] == self._batch and max(shape[1:]) == 1

    def _scales(self, func: Any, noise: Noise | None, channels: list[Any], tensors: list[Tensor]) -> bool:
        """Return whether a tensor of samples is scaled by noise that has no channels."""
        if func not in SCALED or noise is None or len(channels) != 1 or len(tensors) != 2:
            return False
        scaled = next(tensor for tensor in tensors if not isinstance(self.label(tensor), Noise))
        of_samples = scaled.ndim > 1 and len(scaled) == self._batch and not isinstance(channels[0], str)
        return noise.like == channels[0] or (noise.like is None and of_samples)

    def _note(self, entry: Any, made: list[Tensor]) -> None:
        self.path.append(entry)
        for number, tensor in enumerate(made):
            setattr(tensor, LABEL, (len(self.path), number))

    def _made(self, made: list[Tensor], label: Any) -> None:
        for tensor in made:
            setattr(tensor, LABEL, label)


def _counts_batches(label: Any) -> bool:
    return isinstance(label, str) and label.endswith("num_batches_tracked")


def trains_otherwise(model: nn.Module, copier: Callable[[nn.Module], nn.Module], two: Any) -> bool:
    """Return whether training has to be traced too: it does, returns or keeps something else than evaluation.

    Then what runs in training only (auxiliary heads) has parameters that must shrink along.
    """
    try:
        # Training first: where it asks for more than such inputs (targets, say), the other walk is spared.
        return _walked(training(copier(model), model), two) != _walked(copier(model).eval(), two)
    except Exception:  # whatever a model's code raises: the run that is traced will say it
        return True


def leaves_out(model: nn.Module, touched: Collection[str]) -> bool:
    """Return whether evaluation reads only some parameters, and the model's code asks for the mode.

    Most often it has auxiliary heads, for which modes need not be compared.
    """
    if all(name in touched for name, _ in model.named_parameters()):
        return False
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    codes = [getattr(getattr(kind, name, None), "__code__", None) for kind in kinds for name in vars(kind)]
    return any("training" in code.co_names for code in codes if code is not None)


def _walked(copy: nn.Module, inputs: Any) -> list[Any]:
    walk = Walk(copy, inputs)
    with plain_run(copy), IndexLists(), watched(walk), walk:
        out = run(copy, inputs)
    left = (out, inputs, kept_by(copy))
    return [walk.path, *([walk.label(tensor) for tensor in tensors_of(value)] for value in left)]


def untraced(error: Exception) -> str:
    """Return what to say of a model that does not run in training mode."""
    return f"training mode was not traced: {type(error).__name__}: {str(error)[:120]}"


def at_least_two(inputs: Any) -> Any:
    """Return inputs with at least two samples: BatchNorm trains on no less."""
    if batch_of(inputs) > 1:
        return inputs
    # Repeated, not random: token ids and masks stay what they are.
    return tree_map_only(Tensor, lambda t: torch.cat((t, t)) if t.ndim and len(t) == 1 else t, inputs)
