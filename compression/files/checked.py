"""Values of a checkpoint that may be damaged or a stranger's: plain data, as deep and as large as it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from potstill.thinning.files import checked
from potstill.thinning.files.checked import describe
from potstill.thinning.files.regular import NotRegularError
from potstill.thinning.files.text import printable

MAX_DEPTH = 40
MAX_EXPANDED = 2**24
"""Bytes that a tensor may seem to have beyond those in the file (stride 0)."""
MAX_TOGETHER, TIMES = 2**28, 8
"""Bytes that all tensors together may seem to have, and how many times those in the file: masks of whole channels are
stored expanded, and are no larger than the weights."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or that is damaged, unsafe, or not one of ours."""

    def __init__(self, message: object = "") -> None:
        """Say what is wrong, on one line: names in it may come from the file."""
        super().__init__(printable(message))


class Field(checked.Field):
    """A value of a checkpoint and the path that leads to it; see `thinning.files.checked`."""

    failure = CheckpointError


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Blame what goes wrong inside on the value at `path`.

    Raises:
        CheckpointError: anything went wrong.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(str(error) if str(error).startswith(path) else f"{path}: {error}") from error
    except NotRegularError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:  # what takes a state may be a plugin's
        lines = str(error).strip().splitlines() or [""]
        missing = f"{lines[0]} is missing" if isinstance(error, KeyError) else lines[0]
        raise CheckpointError(f"{path}: does not fit: {missing or type(error).__name__}") from error


def check_plain(value: Any) -> None:
    """Check that a value read from a file is made of tensors and plain data, as deep and as large as it says.

    A file of a few bytes can claim tensors of any size (stride 0) and lists that hold themselves.

    Raises:
        CheckpointError: something else is in it.
    """
    tensors = list[Tensor]()
    _check_plain(value, "", [], set(), tensors)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if claimed > MAX_TOGETHER + TIMES * held_bytes(tensors):
        raise CheckpointError(f"its tensors have {claimed:,} bytes, and the file {held_bytes(tensors):,}")


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes that tensors really have in memory or in a file: those of views of one memory once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _check_plain(value: Any, path: str, above: list[int], seen: set[int], tensors: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        _check_tensor(value, path)
        tensors.append(value)
    elif isinstance(value, (dict, list, tuple)):
        if id(value) in above or len(above) > MAX_DEPTH:
            raise CheckpointError(f"{path[:80]}: is nested without end")
        if id(value) in seen:  # a list that stands in a list twice, and that one in another twice, and so on
            return
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"{path}: has the key {describe(key)}, not a name or number")
            _check_plain(item, f"{path}.{key}" if path else str(key), [*above, id(value)], seen, tensors)
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, neither a tensor nor plain data")


def _check_tensor(tensor: Tensor, path: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{path}: is a tensor of a kind that no checkpoint has")
    if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), MAX_EXPANDED):
        raise CheckpointError(f"{path}: a tensor of shape {list(tensor.shape)} has fewer values in the file than that")
