"""Values from a file that may be damaged or a stranger's: each is checked as it is taken out, and named by its path."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .text import printable

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none of its own

LARGEST = 2**1000
"""Whole numbers up to this one are numbers of any kind of file; 10**400 is no float."""


class Field:
    """A value and the path that leads to it; every method returns the value as what it should be.

    Raises:
        Field.failure: from every method, if the value is something else. Each kind of file has a subclass with the
            exception of its own.
    """

    failure: ClassVar[type[Exception]] = ValueError

    def __init__(self, value: Any, path: str = "") -> None:
        """Take the value, and what it is called."""
        self.value, self.path = value, path

    def error(self, wanted: str) -> Exception:
        """Return what is wrong, in one line."""
        return self.failure(f"{self.path}: expected {wanted}, found {describe(self.value)}")

    def __getitem__(self, key: str) -> Self:
        """Return the value of a key of a mapping."""
        if not isinstance(self.value, dict):
            raise self.error("a mapping")
        path = f"{self.path}.{key}" if self.path else key
        if key not in self.value:
            raise self.failure(f"{path}: is missing")
        return type(self)(self.value[key], path)

    def mapping(self) -> dict[str, Self]:
        """Return a mapping with texts as keys."""
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            raise self.error("a mapping of names")
        return {key: self[key] for key in self.value}

    def only(self, keys: Collection[str]) -> Self:
        """Return the value itself, a mapping with no other keys than these."""
        unknown = sorted(self.mapping().keys() - set(keys))
        if unknown:
            raise self.failure(f"{self.path}: has unknown fields: {', '.join(unknown)[:80]!r}")
        return self

    def items(self) -> list[Self]:
        """Return the items of a list or tuple."""
        if not isinstance(self.value, (list, tuple)):
            raise self.error("a list")
        return [type(self)(item, f"{self.path}[{i}]") for i, item in enumerate(self.value)]

    def text(self, choices: Collection[str] | None = None) -> str:
        """Return a text, perhaps one of several."""
        if not isinstance(self.value, str) or (choices is not None and self.value not in choices):
            raise self.error("a text" if choices is None else " or ".join(map(repr, sorted(choices))))
        return self.value

    def flag(self) -> bool:
        """Return True or False."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def integer(self, least: int = 0, most: int = 2**63 - 1) -> int:
        """Return a whole number from `least` to `most`."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.error(f"a whole number of at least {least}" + ("" if most >= 2**62 else f" and at most {most}"))
        return self.value

    def integers(self, count: int | None = None) -> tuple[int, ...]:
        """Return whole numbers, none of them negative, and so many where that is given."""
        items = self.items()
        if count is not None and len(items) != count:
            raise self.error(f"{count} whole numbers")
        return tuple(item.integer() for item in items)

    def number(self, finite: bool = True) -> float:
        """Return a number, finite unless said otherwise; a whole one stays whole."""
        known = isinstance(self.value, float) or (type(self.value) is int and abs(self.value) < LARGEST)
        if not known or math.isnan(self.value) or (finite and math.isinf(self.value)):
            raise self.error("a finite number" if finite else "a number")
        return self.value

    def tensor(self, shape: Sequence[int] | None = None, *dtypes: torch.dtype, finite: bool = True) -> Tensor:
        """Return a tensor, of this shape and one of these dtypes where they are given."""
        if not isinstance(self.value, Tensor):
            raise self.error("a tensor")
        if shape is not None and self.value.shape != torch.Size(shape):
            raise self.error(f"a tensor of shape {list(shape)}")
        if dtypes and self.value.dtype not in dtypes:
            raise self.error(f"a tensor of {' or '.join(str(d).removeprefix('torch.') for d in dtypes)}")
        if finite and not is_finite(self.value):
            raise self.failure(f"{self.path}: has values that are not finite")
        return self.value

    def like(self, live: Any) -> Any:
        """Return plain data of the same kind as the value in use: the same keys, as long, numbers for numbers."""
        if isinstance(live, dict):
            if not isinstance(self.value, dict) or self.value.keys() - live.keys():
                raise self.error(f"a mapping of {', '.join(map(str, live))}"[:100])
            for key, value in self.value.items():
                type(self)(value, f"{self.path}.{key}").like(live[key])
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
    """Return whether no element is NaN or infinite."""
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(part_of(tensor)).all())


def part_of(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor (DTensor) that is here; of others all."""
    return tensor.to_local() if hasattr(tensor, "device_mesh") else tensor  # type: ignore[attr-defined]


def describe(value: Any) -> str:
    """Return a value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    text = f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > LARGEST else ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_json(text: str | bytes) -> Any:
    """Return the value that JSON text says.

    Raises:
        ValueError: it is no JSON, in one line; also where it is nested without end or has a number of 5,000 digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {printable(str(error).splitlines()[0])}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping; of two equal keys one would be lost."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} stands twice")
        found[key] = value
    return found
