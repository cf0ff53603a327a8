"""Which names the code of a model looks up while it runs: an attribute that nothing reads counts nothing."""

from __future__ import annotations

import dis
import sys
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..attributes import SIZES
from ..running.fast_meta import execute
from ..tracing.code_lines import OURS, TORCH

Names = set[str]


class NamesRead(TorchDispatchMode):
    """While it is entered, notes the code that is called; `of` tells whether some of it looks an attribute up.

    Another profiler that is at work keeps its place, and then every name counts as read.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.all = False
        self._paths = {path: id(module) for path, module in model.named_modules(remove_duplicate=False)}
        self._callers: dict[CodeType, set[int]] = {}
        self._own: dict[int, Names] = {}
        self._anywhere: Names = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry an operation out."""
        return execute(func, args, kwargs or {})

    def __enter__(self) -> NamesRead:
        """Begin."""
        super().__enter__()
        if sys.getprofile() is None:
            sys.setprofile(self._called)
        else:
            self.all = True
        return self

    def __exit__(self, *error: Any) -> None:
        """End; after an error code that was not reached may read anything."""
        if not self.all:
            sys.setprofile(None)
        self.all = self.all or error[0] is not None
        for code, callers in self._callers.items():
            own, others = _names_of(code)
            self._anywhere |= others if callers else own | others
            for module in callers:
                self._own.setdefault(module, set()).update(own)
        super().__exit__(*error)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        callers = self._callers.setdefault(code, set())
        if code.co_argcount and not code.co_filename.startswith(TORCH):
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, nn.Module):
                callers.add(id(first))

    def of(self, module: str, name: str) -> bool:
        """Return whether an attribute of this name may have been read from a module, by its path."""
        return self.anywhere(name) or name in self._own.get(self._paths.get(module, 0), ())

    def anywhere(self, name: str) -> bool:
        """Return whether an attribute of this name may have been read from an object of any kind."""
        return self.all or name in self._anywhere


def _names_of(code: CodeType) -> tuple[Names, Names]:
    """Return the names that code looks up in its first argument (`self.heads`), and in whatever else."""
    names = {*code.co_names, *(value for value in code.co_consts if isinstance(value, str))}
    if code.co_filename.startswith(OURS):
        return set(), set()
    # Torch's own code asks tensors for `dim()` and the like; of modules it reads the sizes that it knows.
    if code.co_filename.startswith(TORCH):
        return set(), names & SIZES
    own: Names = set()
    others = {value for value in code.co_consts if isinstance(value, str)}  # `getattr(self, "heads")`
    first, last = code.co_varnames[:1], None
    for step in dis.get_instructions(code):
        if step.opname.startswith("STORE_FAST") and first and first[0] in _locals(step):
            return set(), names  # another object goes by the name of the first argument
        if step.opcode in dis.hasname:
            of_first = last is not None and last.opname.startswith("LOAD_FAST") and _locals(last)[-1:] == first
            (own if of_first and step.opname in ("LOAD_ATTR", "LOAD_METHOD") else others).add(step.argval)
        last = step
    return own, others


def _locals(step: dis.Instruction) -> tuple[Any, ...]:
    """Return the local variables of an instruction: some load or store two."""
    return step.argval if isinstance(step.argval, tuple) else (step.argval,)
