"""Evaluation and training: how a copy runs in either mode, and whether training carries other operations out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ..running.fast_meta import execute
from ..running.inputs import batch_of, run
from ..running.run import plain_run
from .call import Frame
from .log import TraceLog


class Watcher(TorchDispatchMode):
    """Knows which module runs, and which operation.

    `path` lists the modules entered, and the operations of code that is not torch's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        self.stack: list[Frame] = []
        self.path: list[Any] = []
        self.running: Any = None

    def watch(self, model: nn.Module) -> None:
        """Watch a model from its first module on."""
        self.names = {}
        self.stack = []
        for name, module in model.named_modules():
            self.names.setdefault(id(module), name)

    @property
    def frame(self) -> Frame:
        """Return the module whose forward runs."""
        return self.stack[-1] if self.stack else Frame("", None)

    @property
    def place(self) -> str:
        """Return what runs: the operation and the module, for messages about what fails."""
        name = getattr(self.running, "overloadpacket", None)
        return f"{name} in {self.frame.text}" if name is not None else self.frame.text


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let the watcher know which module runs, by global hooks that are taken off again."""

    def enter(module: nn.Module, _: Any) -> None:
        name = watcher.names.get(id(module), "")
        watcher.stack.append(Frame(name, module))
        watcher.path.append(name)

    def leave(*_: Any) -> None:
        watcher.stack.pop()

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def is_own(module: nn.Module | None) -> bool:
    """Return whether a module's code is not torch's: of torch's it is known what training changes."""
    return not type(module).__module__.startswith("torch.")


class Walk(Watcher):
    """Carries operations out and lists the path, no more."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out and note it."""
        if is_own(self.frame.module):
            self.path.append(func)
        return execute(func, args, kwargs or {})


def trains_otherwise(
    model: nn.Module, copier: Callable[[nn.Module], nn.Module], two: Any, path: list[Any], log: TraceLog
) -> bool:
    """Return whether some code runs in training only: then training has to be traced too.

    The model's code asks for `self.training`, or a run in training mode leaves the path that evaluation took.
    """
    if _asks_for_mode(model):
        return True
    copy = copier(model).train()
    walk = Walk()
    walk.watch(copy)
    try:
        with plain_run(copy), watched(walk), walk:
            run(copy, two)
    except Exception as error:  # whatever a model's code raises: it may refuse to train on such inputs
        log.warnings.append(untraced(error))
        return False
    # Dropout and norms in torch's own modules do the same to channels in both modes; code of the user that runs in
    # training only (auxiliary heads) has parameters that must shrink along.
    return walk.path != path


def untraced(error: Exception) -> str:
    """Return what to say of a model that does not run in training mode."""
    return f"training mode was not traced: {type(error).__name__}: {str(error)[:120]}"


def _asks_for_mode(model: nn.Module) -> bool:
    """Return whether code other than torch's own looks at `self.training`."""
    # Bytecode names what code looks up: reading it spares a run of every model in training mode.
    kinds = {type(module) for module in model.modules() if is_own(module)}
    codes = [getattr(getattr(kind, name, None), "__code__", None) for kind in kinds for name in vars(kind)]
    return any("training" in code.co_names for code in codes if code is not None)


def at_least_two(inputs: Any) -> Any:
    """Return inputs with at least two samples: BatchNorm trains on no less."""
    if batch_of(inputs) > 1:
        return inputs
    # Repeated, not random: token ids and masks stay what they are.
    return tree_map_only(Tensor, lambda t: torch.cat((t, t)) if t.ndim and len(t) == 1 else t, inputs)
