"""Recipes as JSON text. Reading checks every field; an index range is [first, last + 1]."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from .apply import AttributeChange, Folding, TensorChange
from .errors import ThinningError
from .running.default_device import on_cpu

FORMAT = "potstill-recipe"
VERSION = 1


def encode(recipe: Mapping[str, Any]) -> str:
    """See `Recipe.to_json`."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        **recipe,
        "tensors": [
            {"name": c.name, "shape": c.shape, "keep": {str(dim): ranges(kept) for dim, kept in c.keep.items()}}
            for c in recipe["tensors"]
        ],
        "attributes": [vars(change) for change in recipe["attributes"]],
        "folds": [{"name": fold.name, "amounts": fold.amounts.tolist()} for fold in recipe["folds"]],
        "frozen": [vars(kept) for kept in recipe["frozen"]],
        "refused": [vars(kept) for kept in recipe["refused"]],
    }
    return json.dumps(data, indent=1)


def ranges(kept: Tensor) -> list[list[int]]:
    """Ascending integers as [first, last + 1] ranges."""
    if not len(kept):
        return []
    breaks = (kept[1:] != kept[:-1] + 1).nonzero().flatten() + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in torch.tensor_split(kept, breaks)]


class _Reader:
    """Takes a JSON value apart and says where something is wrong."""

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.path = value, path

    def fail(self, wanted: str) -> ThinningError:
        return ThinningError(f"recipe: {self.path}: expected {wanted}, got {str(self.value)[:60]!r}")

    def __getitem__(self, key: str) -> _Reader:
        if not isinstance(self.value, dict) or key not in self.value:
            raise ThinningError(f"recipe: {self.path}: '{key}' is missing")
        return _Reader(self.value[key], f"{self.path}.{key}")

    def items(self) -> list[_Reader]:
        if not isinstance(self.value, list):
            raise self.fail("a list")
        return [_Reader(item, f"{self.path}[{i}]") for i, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail("text")
        return self.value

    def integer(self, least: int = 0) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < least:
            raise self.fail(f"an integer of at least {least}")
        return self.value

    def number(self) -> float:
        if not isinstance(self.value, (int, float)) or isinstance(self.value, bool) or not isfinite(self.value):
            raise self.fail("a finite number")
        return float(self.value)

    def integers(self) -> tuple[int, ...]:
        return tuple(item.integer() for item in self.items())

    def pair(self) -> tuple[int, int]:
        first, second = ([*self.items(), self, self])[:2]
        if len(self.items()) != 2:
            raise self.fail("two integers")
        return first.integer(), second.integer()


@on_cpu
def decode(text: str) -> dict[str, Any]:
    """See `Recipe.from_json`."""
    try:
        top = _Reader(json.loads(text), "$")
    except (json.JSONDecodeError, TypeError, RecursionError) as error:
        raise ThinningError(f"recipe: not JSON: {error}") from error
    if top["format"].text() != FORMAT or top["version"].integer() != VERSION:
        raise ThinningError(f"recipe: this reads format {FORMAT!r} version {VERSION}; the text says otherwise")
    return {
        "model": top["model"].text(),
        "tensors": _distinct([_tensor(item) for item in top["tensors"].items()]),
        "attributes": tuple(_attribute(item) for item in top["attributes"].items()),
        "folds": tuple(_fold(item) for item in top["folds"].items()),
        "frozen": _kept(top["frozen"]),
        "refused": _kept(top["refused"]),
        "notes": tuple(item.text() for item in top["notes"].items()),
        "max_relative_difference": top["max_relative_difference"].number(),
        "parameters": top["parameters"].pair(),
        "macs": top["macs"].pair(),
        "inputs": top["inputs"].value,
    }


def _distinct(changes: list[TensorChange]) -> tuple[TensorChange, ...]:
    names = [change.name for change in changes]
    if len(set(names)) != len(names):
        raise ThinningError("recipe: $.tensors: a name occurs twice")
    return tuple(changes)


def _tensor(item: _Reader) -> TensorChange:
    shape = item["shape"].integers()
    keep = {}
    raw = item["keep"].value
    if not isinstance(raw, dict):
        raise item["keep"].fail("a mapping from dimension to ranges")
    for key in raw:
        if not key.isdigit() or int(key) >= len(shape):
            raise ThinningError(f"recipe: {item.path}.keep: '{key}' is no dimension of shape {list(shape)}")
        keep[int(key)] = _indices(item["keep"][key], shape[int(key)])
    return TensorChange(item["name"].text(), shape, keep)


def _indices(item: _Reader, size: int) -> Tensor:
    pieces, last = [], 0
    for part in item.items():
        start, stop = part.pair()
        if not last <= start < stop <= size:
            raise part.fail(f"an ascending range within 0..{size}")
        pieces.append(torch.arange(start, stop))
        last = stop
    if not pieces:
        raise item.fail("at least one range")
    return torch.cat(pieces)


def _attribute(item: _Reader) -> AttributeChange:
    index = None if item["index"].value is None else item["index"].integer()
    name, module = item["name"].text(), item["module"].text()
    if not name.isidentifier() or name.startswith("__"):
        raise item["name"].fail("the name of an attribute")
    return AttributeChange(module, name, index, _size(item["old"]), _size(item["new"]))


def _size(item: _Reader) -> int | tuple[int, ...]:
    return item.integers() if isinstance(item.value, list) else item.integer()


def _fold(item: _Reader) -> Folding:
    return Folding(
        item["name"].text(), torch.tensor([x.number() for x in item["amounts"].items()], dtype=torch.float64)
    )


def _kept(item: _Reader) -> list[tuple[int, str, str]]:
    """The fields of each `Kept`."""
    return [(part["channels"].integer(), part["use"].text(), part["reason"].text()) for part in item.items()]
