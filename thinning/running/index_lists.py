"""Lists of integers that the model's code writes as an index, `x[:, [0, 2]]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

READ_WHOLE = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}


class IndexLists(TorchFunctionMode):
    """Makes tensors on the CPU of them: torch makes some on the indexed tensor's device, where meta has no numbers.

    `read` is told of tensors whose numbers the code reads as a list or an array, which no operation shows.
    """

    def __init__(self, read: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.read = read

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Carry a function out."""
        if self.read is not None and func in READ_WHOLE:
            self.read(args[0])
        if func is torch.Tensor.__getitem__:
            tensor, index = args
            args = tensor, tuple(map(_made, index)) if isinstance(index, tuple) else _made(index)
        return func(*args, **(kwargs or {}))


def _made(index: Any) -> Any:
    written = isinstance(index, list) and index and all(type(number) is int for number in index)
    return torch.tensor(index, device="cpu") if written else index
