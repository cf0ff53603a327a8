"""Where the activation of a layer is to be seen: found by following tensors through one training forward pass.

A layer's output is followed through the modules that read it: through normalisation and dropout to the first module
that gives as many values of the same shape, the activation. Where none reads it (a functional ReLU), the values are
rectified here. No naming convention is needed. A module may activate several layers (torchvision's ResNets have one
ReLU a block): in each pass, what counts is that it reads the tensor that came from the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.hooks import RemovableHandle

from ..declare.cross_checks import Complaint, refused_weights

Mark = TypeVar("Mark")
Key = tuple[int, ...]


class Site(NamedTuple):
    """The modules from the layer to the one whose outputs to look at, and whether these still have to be rectified."""

    modules: tuple[str, ...]
    rectify: bool


def channel_dim(name: str, model: nn.Module) -> int:
    """Return the dimension of its layer's outputs that a weight's filters count.

    Raises:
        ValueError: the weight is of no convolution and no Linear.
    """
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, _ConvNd):
        return 1
    if isinstance(layer, nn.Linear):
        return -1
    raise ValueError(f"{name} is of a {type(layer).__name__}: only filters of convolutions and Linear can be watched")


def unwatched(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Complain of those of `weights` whose layers cannot be watched."""
    return refused_weights(args, shapes, channel_dim)


class Finder:
    """Finds the sites of some weights at the first training forward pass, and then detaches itself."""

    def __init__(self, model: nn.Module, names: Iterable[str], found: Callable[[dict[str, Site]], None]) -> None:
        """Attach to the model; `found` is called at the end of that pass."""
        self._model, self._found = model, found
        self._layers = {name.rpartition(".")[0]: name for name in names}
        self._sites: dict[str, Site] = {}
        self._tips = Tips[str]()
        self._handles: list[RemovableHandle] = []
        for module_name, module in model.named_modules():
            if module_name in self._layers or not any(True for _ in module.children()):
                self._handles.append(module.register_forward_hook(only(module, self._follow(module_name))))
        self._handles.append(model.register_forward_hook(only(model, self._end)))

    def remove(self) -> None:
        """Remove all hooks and let go of the tensors."""
        for handle in self._handles:
            handle.remove()
        self._tips.clear()

    def _follow(self, module_name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not self._model.training or not isinstance(output, Tensor):
                return
            if module_name in self._layers:
                name = self._layers[module_name]
                self._sites[name] = Site((module_name,), rectify=True)
                self._tips.add(output, name)
            elif _keeps_shape(inputs, output) and not isinstance(module, (_ConvNd, nn.Linear)):
                passes = is_norm(module) or isinstance(module, (_DropoutNd, nn.Identity))
                for name in self._tips.take(inputs[0], output):
                    self._sites[name] = Site((*self._sites[name].modules, module_name), rectify=passes)
                    if passes:
                        self._tips.add(output, name)

        return hook

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training:
            self.remove()
            self._found(self._sites)


class Follower:
    """Shows the activations at known sites in each training forward pass of a model."""

    def __init__(self, model: nn.Module, sites: Mapping[str, Site], see: Callable[[str, Tensor], None]) -> None:
        """Attach to the model; `see` gets the name of a weight and the activation of its layer."""
        self._model, self._sites, self._see = model, sites, see
        self._tips = Tips[tuple[str, int]]()
        self._handles = [model.register_forward_hook(only(model, self._end), always_call=True)]
        for module_name in {name: None for site in sites.values() for name in site.modules}:
            module = model.get_submodule(module_name)
            self._handles.append(module.register_forward_hook(only(module, self._follow(module_name))))

    def remove(self) -> None:
        """Detach."""
        for handle in self._handles:
            handle.remove()
        self._tips.clear()

    def _follow(self, module_name: str) -> Callable[..., None]:
        begins = [(name, 0) for name, site in self._sites.items() if site.modules[0] == module_name]

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not self._model.training or not isinstance(output, Tensor):
                return
            read = self._tips.take(inputs[0], output) if inputs and isinstance(inputs[0], Tensor) else []
            for name, place in [*begins, *((name, place + 1) for name, place in read)]:
                modules = self._sites[name].modules
                if modules[place] != module_name:
                    self._tips.add(inputs[0], (name, place - 1))  # another module reads it too
                elif place + 1 < len(modules):
                    self._tips.add(output, (name, place))
                else:
                    self._show(name, output)

        return hook

    @torch.no_grad()
    def _show(self, name: str, output: Tensor) -> None:
        self._see(name, output.clamp(min=0) if self._sites[name].rectify else output)

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._tips.clear()


class Tips(Generic[Mark]):
    """What is known of tensors on their way from module to module; they are held, so that no other gets their place.

    A tensor that was changed in between (`out += identity`) is no longer what came from the layer.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._marks: dict[Key, list[Mark]] = {}
        self._versions: dict[Key, int] = {}
        self._held: list[Tensor] = []

    def add(self, tensor: Tensor, mark: Mark) -> None:
        """Mark a tensor as it is now."""
        key = _key(tensor)
        self._marks.setdefault(key, []).append(mark)
        self._versions[key] = _version(tensor)
        self._held.append(tensor)

    def take(self, read: Tensor, output: Tensor) -> list[Mark]:
        """Return the marks of a tensor that a module has read, which it loses.

        The module itself may have changed it.
        """
        key = _key(read)
        # Taken off: a second module that reads it (a shortcut) does not make a second site; where both do, the first to
        # run has it.
        marks = self._marks.pop(key, [])
        # A module that works in place (ReLU(inplace=True)) has changed it once itself; any more came from code in
        # between.
        changes = _version(read) - self._versions.get(key, 0)
        return marks if changes <= (_key(output) == key) else []

    def clear(self) -> None:
        """Forget all."""
        self._marks.clear()
        self._versions.clear()
        self._held.clear()


def _key(tensor: Tensor) -> Key:
    """Return what tells tensors apart.

    Memory and shape, since `fully_shard` puts views in the place of a module's inputs.
    """
    return (tensor.data_ptr() or id(tensor), *tensor.shape)


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; in inference mode torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


class only:  # noqa: N801 -- reads like the function that it is
    """The hook for this module alone: copies of a model (for tracing, averaging) carry its hooks along."""

    def __init__(self, target: nn.Module | None = None, hook: Callable[..., None] | None = None) -> None:
        """Take the module and what is to be called; a copy of the hook has neither."""
        self.target, self.hook = target, hook

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Call the hook, if it is the module's."""
        if module is self.target and self.hook is not None:
            self.hook(module, inputs, output)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a copy is made of: it watches nothing, for whom it would tell does not come along."""
        return only, ()


def _keeps_shape(inputs: tuple[Any, ...], output: Tensor) -> bool:
    return len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].shape == output.shape


def is_norm(module: nn.Module) -> bool:
    """Return whether a module normalises, by the name of its class: torch's and other people's."""
    return "Norm" in type(module).__name__
