"""Where the activation of a layer is to be seen: found by following tensors through one training forward pass.

A layer's output is followed through the modules that read it: through normalisation and dropout to the first module
that gives as many values of the same shape, the activation. Where none reads it (a functional ReLU), the values are
rectified here. No naming convention is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.hooks import RemovableHandle


class Site(NamedTuple):
    """The module whose outputs to look at, and whether they still have to be rectified."""

    module: str
    rectify: bool


def channel_dim(name: str, model: nn.Module) -> int:
    """The dimension of its layer's outputs that a weight's filters count.

    Raises:
        ValueError: the weight is of no convolution and no Linear.
    """
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, _ConvNd):
        return 1
    if isinstance(layer, nn.Linear):
        return -1
    raise ValueError(f"{name} is of a {type(layer).__name__}: only filters of convolutions and Linear can be watched")


class Finder:
    """Finds the sites of some weights at the first training forward pass, and then detaches itself."""

    def __init__(self, model: nn.Module, names: Iterable[str], found: Callable[[dict[str, Site]], None]) -> None:
        """Attach to the model; `found` is called at the end of that pass."""
        self._model, self._found = model, found
        self._layers = {name.rpartition(".")[0]: name for name in names}
        self._sites: dict[str, Site] = {}
        self._tips: dict[int, list[str]] = {}
        self._held: list[Tensor] = []  # while they are held, no other tensor gets their id
        self._handles: list[RemovableHandle] = []
        for module_name, module in model.named_modules():
            if module_name in self._layers or not any(True for _ in module.children()):
                self._handles.append(module.register_forward_hook(only(module, self._follow(module_name))))
        self._handles.append(model.register_forward_hook(only(model, self._end)))

    def detach(self) -> None:
        """Remove all hooks and let go of the tensors."""
        for handle in self._handles:
            handle.remove()
        self._tips.clear()
        self._held.clear()

    def _follow(self, module_name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not self._model.training or not isinstance(output, Tensor):
                return
            if module_name in self._layers:
                self._step(module_name, [self._layers[module_name]], output, rectify=True, goes_on=True)
            elif _keeps_shape(inputs, output) and not isinstance(module, (_ConvNd, nn.Linear)):
                names = self._tips.pop(id(inputs[0]), [])
                passes = is_norm(module) or isinstance(module, (_DropoutNd, nn.Identity))
                self._step(module_name, names, output, rectify=passes, goes_on=passes)

        return hook

    def _step(self, module_name: str, names: list[str], output: Tensor, rectify: bool, goes_on: bool) -> None:
        for name in names:
            self._sites[name] = Site(module_name, rectify)
        if goes_on and names:
            self._tips[id(output)] = names
            self._held.append(output)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training:
            self.detach()
            self._found(self._sites)


def watch(model: nn.Module, site: Site, see: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `see` with the activation at a site in each training forward pass of the model."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if model.training:
            with torch.no_grad():
                see(output.clamp(min=0) if site.rectify else output)

    module = model.get_submodule(site.module)
    return module.register_forward_hook(only(module, hook))


def only(target: nn.Module, hook: Callable[..., None]) -> Callable[..., None]:
    """The hook for this module alone: copies of a model (for tracing, averaging) carry its hooks along."""

    def guarded(module: nn.Module, inputs: Any, output: Any) -> None:
        if module is target:
            hook(module, inputs, output)

    return guarded


def _keeps_shape(inputs: tuple[Any, ...], output: Tensor) -> bool:
    return len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].shape == output.shape


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises, by the name of its class: torch's and other people's."""
    return "Norm" in type(module).__name__
