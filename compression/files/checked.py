"""Values from a file that may be damaged or a stranger's: each is checked as it is taken out, and named by its path."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MAX_DEPTH = 40
MAX_EXPANDED = 2**24
"""Bytes that a tensor may seem to have beyond those in the file (stride 0)."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or that is damaged, unsafe, or not one of ours."""


class Field:
    """A value and the path that leads to it; every method gives the value as what it should be.

    Raises:
        CheckpointError: from every method, if the value is something else.
    """

    def __init__(self, value: Any, path: str = "") -> None:
        """Take the value, and what it is called."""
        self.value, self.path = value, path

    def error(self, wanted: str) -> CheckpointError:
        """What is wrong, in one line."""
        return CheckpointError(f"{self.path}: expected {wanted}, found {describe(self.value)}")

    def __getitem__(self, key: str) -> Field:
        """The value of a key of a mapping."""
        if not isinstance(self.value, dict):
            raise self.error("a mapping")
        path = f"{self.path}.{key}" if self.path else key
        if key not in self.value:
            raise CheckpointError(f"{path}: is missing")
        return Field(self.value[key], path)

    def mapping(self) -> dict[str, Field]:
        """A mapping with texts as keys."""
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise self.error("a mapping of names")
        return {key: self[key] for key in self.value}

    def only(self, keys: Collection[str]) -> Field:
        """The value itself, a mapping with no other keys than these."""
        unknown = sorted(self.mapping().keys() - set(keys))
        if unknown:
            raise CheckpointError(f"{self.path}: has unknown fields: {', '.join(unknown)[:80]!r}")
        return self

    def items(self) -> list[Field]:
        """A list or tuple."""
        if not isinstance(self.value, (list, tuple)):
            raise self.error("a list")
        return [Field(item, f"{self.path}[{i}]") for i, item in enumerate(self.value)]

    def text(self, choices: Collection[str] | None = None) -> str:
        """A text, perhaps one of several."""
        if not isinstance(self.value, str) or (choices is not None and self.value not in choices):
            raise self.error("a text" if choices is None else " or ".join(map(repr, sorted(choices))))
        return self.value

    def flag(self) -> bool:
        """True or False."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def integer(self, least: int = 0, most: int = 2**63 - 1) -> int:
        """A whole number from `least` to `most`."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.error(f"a whole number of at least {least}" + ("" if most >= 2**62 else f" and at most {most}"))
        return self.value

    def integers(self, count: int) -> tuple[int, ...]:
        """So many whole numbers, none of them negative."""
        items = self.items()
        if len(items) != count:
            raise self.error(f"{count} whole numbers")
        return tuple(item.integer() for item in items)

    def number(self, finite: bool = True) -> float:
        """A number, finite unless said otherwise; a whole one stays whole."""
        if type(self.value) not in (int, float) or math.isnan(self.value) or (finite and math.isinf(self.value)):
            raise self.error("a finite number" if finite else "a number")
        return self.value

    def tensor(self, shape: Sequence[int] | None = None, *dtypes: torch.dtype, finite: bool = True) -> Tensor:
        """A tensor, of this shape and one of these dtypes where they are given."""
        if not isinstance(self.value, Tensor):
            raise self.error("a tensor")
        if shape is not None and self.value.shape != torch.Size(shape):
            raise self.error(f"a tensor of shape {list(shape)}")
        if dtypes and self.value.dtype not in dtypes:
            raise self.error(f"a tensor of {' or '.join(str(d).removeprefix('torch.') for d in dtypes)}")
        if finite and not is_finite(self.value):
            raise CheckpointError(f"{self.path}: has values that are not finite")
        return self.value

    def like(self, live: Any) -> Any:
        """Plain data of the same kind as the value in use: the same keys, as long, numbers for numbers."""
        if isinstance(live, dict):
            if not isinstance(self.value, dict) or self.value.keys() - live.keys():
                raise self.error(f"a mapping of {', '.join(map(str, live))}"[:100])
            for key, value in self.value.items():
                Field(value, f"{self.path}.{key}").like(live[key])
        elif isinstance(live, (list, tuple)):
            if len(self.items()) != len(live):
                raise self.error(f"{len(live)} values")
            for item, value in zip(self.items(), live, strict=True):
                item.like(value)
        elif isinstance(live, bool):
            self.flag()
        elif isinstance(live, str):
            self.text()
        elif self.value is not None or live is not None:
            self.flag() if isinstance(self.value, bool) and live is None else self.number(finite=False)
        return self.value


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())


def describe(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def reading(path: str) -> Iterator[None]:
    """What goes wrong inside is the fault of the value at `path`.

    Raises:
        CheckpointError: anything went wrong.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [""]
        missing = f"{lines[0]} is missing" if isinstance(error, KeyError) else lines[0]
        raise CheckpointError(f"{path}: does not fit: {missing or type(error).__name__}") from error


def check_plain(value: Any) -> None:
    """Check that a value read from a file is made of tensors and plain data, as deep and as large as it says.

    A file of a few bytes can claim tensors of any size (stride 0) and lists that hold themselves.

    Raises:
        CheckpointError: something else is in it.
    """
    _check_plain(value, "", [], set())


def _check_plain(value: Any, path: str, above: list[int], seen: set[int]) -> None:
    if isinstance(value, Tensor):
        _check_tensor(value, path)
    elif isinstance(value, (dict, list, tuple)):
        if id(value) in above or len(above) > MAX_DEPTH:
            raise CheckpointError(f"{path[:80]}: is nested without end")
        if id(value) in seen:  # a list that stands in a list twice, and that one in another twice, and so on
            return
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"{path}: has the key {describe(key)}, not a name or number")
            _check_plain(item, f"{path}.{key}" if path else str(key), [*above, id(value)], seen)
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, neither a tensor nor plain data")


def _check_tensor(tensor: Tensor, path: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{path}: is a tensor of a kind that no checkpoint has")
    if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), MAX_EXPANDED):
        raise CheckpointError(f"{path}: a tensor of shape {list(tensor.shape)} has fewer values in the file than that")
