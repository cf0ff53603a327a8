"""Which names the code of a model looks up while it runs: an attribute that nothing reads counts nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import CodeType, FrameType
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from ..attributes import SIZES
from ..running.fast_meta import execute
from ..tracing.code_lines import OURS, TORCH


class NamesRead(TorchDispatchMode):
    """While it is entered, notes the code that is called; `name in names` tells whether some of it looks that up.

    Another profiler that is at work keeps its place, and then every name counts as read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.codes: set[CodeType] = set()
        self.all = False
        self._names: set[str] = set()

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
        self._names = {name for code in self.codes for name in _names_of(code)}
        super().__exit__(*error)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self.codes.add(frame.f_code)

    def __contains__(self, name: object) -> bool:
        """Return whether an attribute of this name may have been read."""
        return self.all or name in self._names


def _names_of(code: CodeType) -> set[str]:
    """Return the names that code looks up, in text too (`getattr(self, "heads")`)."""
    names = {*code.co_names, *(value for value in code.co_consts if isinstance(value, str))}
    if code.co_filename.startswith(OURS):
        return set()
    # Torch's own code asks tensors for `dim()` and the like; of modules it reads the sizes that it knows.
    return names & SIZES if code.co_filename.startswith(TORCH) else names
