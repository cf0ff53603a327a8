"""The layers of a network whose time depends on widths, as they are called, each to be built in other widths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning.running.inputs import run

from .measure import alternately

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SECONDS = 0.004
"""How long a layer is measured in each pair of widths: there are hundreds of them."""


@dataclass(frozen=True)
class Case:
    """A call of a layer: all that its time depends on but its widths; and these as they are.

    Attributes:
        kind: class of the layer.
        kernel: kernel size, stride, padding, dilation; nothing of a Linear.
        groups: of a convolution.
        bias: whether it has one.
        shape: of the input; its channels are those of `inputs`.
        channels_last: layout of the input.
        dtype: of the weight.
        device: where it is.
        inputs: input channels.
        outputs: output channels.
    """

    kind: str
    kernel: tuple[Any, ...]
    groups: int
    bias: bool
    shape: tuple[int, ...]
    channels_last: bool
    dtype: str
    device: str
    inputs: int
    outputs: int

    @property
    def depthwise(self) -> bool:
        """Return whether each input channel has filters of its own, so that there is one width."""
        return self.groups > 1 and self.groups == self.inputs

    def widths(self, parts: tuple[float, ...]) -> Iterator[tuple[int, int]]:
        """Yield pairs of inputs and outputs: so many parts of the channels, whole groups of them."""
        if self.depthwise:
            each = self.outputs // self.inputs
            yield from {(width, width * each): None for width in _parts(self.inputs, 1, parts)}
            return
        for inputs in _parts(self.inputs, self.groups, parts):
            yield from ((inputs, outputs) for outputs in _parts(self.outputs, self.groups, parts))

    def milliseconds(self, inputs: int, outputs: int) -> float:
        """Return how long a call takes in these widths, measured now."""
        layer, x = self._layer(inputs, outputs), self._input(inputs)
        wait: Callable[[], None] = (lambda: torch.cuda.synchronize(x.device)) if x.is_cuda else (lambda: None)
        with torch.no_grad():
            return alternately([lambda: layer(x)], wait, SECONDS)[0]

    def key(self, inputs: int, outputs: int) -> str:
        """Return a text that tells this measurement from all others on the device."""
        parts = (self.kind, self.kernel, self.groups, self.bias, self.shape, self.channels_last, self.dtype)
        return f"{parts} {inputs} {outputs} {torch.get_num_threads()}"

    def _layer(self, inputs: int, outputs: int) -> nn.Module:
        settings: dict[str, Any] = {"bias": self.bias, "dtype": getattr(torch, self.dtype), "device": self.device}
        if self.kind == "Linear":
            return nn.Linear(inputs, outputs, **settings)
        kernel, stride, padding, dilation = self.kernel
        groups = inputs if self.depthwise else self.groups
        settings |= {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        layer: nn.Module = getattr(nn, self.kind)(inputs, outputs, kernel, **settings)
        return layer.to(memory_format=torch.channels_last) if self.channels_last else layer

    def _input(self, inputs: int) -> Tensor:
        axis = len(self.shape) - 1 if self.kind == "Linear" else 1
        shape = (*self.shape[:axis], inputs, *self.shape[axis + 1 :])
        x = torch.zeros(shape, dtype=getattr(torch, self.dtype), device=self.device)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x


def _parts(width: int, groups: int, parts: tuple[float, ...]) -> list[int]:
    """Return parts of a width, whole groups, each once."""
    each = width // groups
    return sorted({groups * max(1, round(each * part)) for part in parts})


def calls(model: nn.Module, inputs: Any) -> dict[str, list[Case]]:
    """Return, by the name of a layer's weight, how the layer is called in one forward pass."""
    found: dict[str, list[Case]] = {}
    copied = copy.deepcopy(model).eval()
    with torch.no_grad(), _watching(copied, found):
        run(copied, inputs)
    return found


@contextmanager
def _watching(model: nn.Module, found: dict[str, list[Case]]) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if type(module) in KINDS and isinstance(module.weight, Tensor):

            def note(module: Any, args: Any, name: str = name) -> None:
                found.setdefault(f"{name}.weight".lstrip("."), []).append(_case(module, args[0]))

            handles.append(module.register_forward_pre_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _case(layer: Any, x: Tensor) -> Case:
    linear = isinstance(layer, nn.Linear)
    batched = linear or x.dim() == layer.weight.dim()
    shape = tuple(x.shape) if batched else (1, *x.shape)
    channels_last = x.dim() == 4 and shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)
    kernel = () if linear else (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return Case(
        kind=type(layer).__name__,
        kernel=kernel,
        groups=1 if linear else layer.groups,
        bias=layer.bias is not None,
        shape=shape,
        channels_last=channels_last and not linear,
        dtype=str(layer.weight.dtype).removeprefix("torch."),
        device=str(x.device),
        inputs=layer.in_features if linear else layer.in_channels,
        outputs=layer.out_features if linear else layer.out_channels,
    )
