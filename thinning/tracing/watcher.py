"""Which module runs, and which operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from .call import Frame


class Watcher(TorchDispatchMode):
    """Knows which module runs, and which operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        self.stack: list[Frame] = []
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

    def entered(self, frame: Frame) -> None:
        """Note that a module's forward begins."""
        self.stack.append(frame)

    def left(self, module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        """Note that a module's forward ends, with what was given to it and what it made."""
        self.stack.pop()


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let the watcher know which module runs, by global hooks that are taken off again."""

    def enter(module: nn.Module, _: Any) -> None:
        watcher.entered(Frame(watcher.names.get(id(module), ""), module))

    def leave(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        watcher.left(module, given, made)

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave)
    try:
        yield
    finally:
        before.remove()
        after.remove()
