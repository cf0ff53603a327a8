"""Recipes as JSON text. Reading checks every field; an index range is [first, last + 1]."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from .changes import AttributeChange, Folding, Magnitude, Rescaling, TensorChange
from .errors import ThinningError
from .files.checked import Field, parse_json
from .kept_ranges import KeptRanges, Ranges, kept_ranges
from .running.default_device import on_cpu
from .running.input_spec import checked_spec

FORMAT = "potstill-recipe"
VERSIONS = (1, 2, 3, 4)
"""Version 2 has rescalings, 3 biases too, 4 magnitudes; recipes without any are of version 1, as before."""


def encode(recipe: Mapping[str, Any]) -> str:
    """See `Recipe.to_json`."""
    changed = [vars(norm) for norm in recipe["rescalings"]]
    data: dict[str, Any] = {
        "format": FORMAT,
        "version": 4 if recipe["magnitudes"] else 3 if recipe["biases"] else 2 if changed else 1,
        **{key: value for key, value in recipe.items() if key not in ("rescalings", "biases", "magnitudes")},
        "tensors": [
            {"name": c.name, "shape": c.shape, "keep": {str(dim): kept_ranges(c.keep, dim) for dim in c.keep}}
            for c in recipe["tensors"]
        ],
        "attributes": [vars(change) for change in recipe["attributes"]],
        "folds": [{"name": fold.name, "amounts": fold.amounts.tolist()} for fold in recipe["folds"]],
        "frozen": [vars(kept) for kept in recipe["frozen"]],
        "refused": [vars(kept) for kept in recipe["refused"]],
    }
    data |= {"rescalings": changed} if data["version"] > 1 else {}
    data |= {"biases": recipe["biases"]} if data["version"] > 2 else {}
    data |= {"magnitudes": [vars(one) for one in recipe["magnitudes"]]} if data["version"] > 3 else {}
    return json.dumps(data, indent=1)


class _Field(Field):
    failure = ThinningError


@on_cpu
def decode(text: str) -> dict[str, Any]:
    """See `Recipe.from_json`."""
    try:
        top = _Field(parse_json(text), "recipe")
    except ValueError as error:
        raise ThinningError(f"recipe: {error}") from error
    version = top["version"].integer()
    if top["format"].text() != FORMAT or version not in VERSIONS:
        known = f"format {FORMAT!r} versions 1 to {VERSIONS[-1]}"
        raise ThinningError(f"recipe: this reads {known}; the text says otherwise")
    return {
        "model": top["model"].text(),
        "tensors": _distinct([_tensor(item) for item in top["tensors"].items()]),
        "attributes": tuple(_attribute(item) for item in top["attributes"].items()),
        "folds": tuple(_fold(item) for item in top["folds"].items()),
        "rescalings": tuple(_rescaling(item) for item in top["rescalings"].items()) if version > 1 else (),
        "biases": tuple(_bias(item) for item in top["biases"].items()) if version > 2 else (),
        "magnitudes": tuple(_magnitude(item) for item in top["magnitudes"].items()) if version > 3 else (),
        "frozen": _kept(top["frozen"]),
        "refused": _kept(top["refused"]),
        "notes": tuple(item.text() for item in top["notes"].items()),
        "max_relative_difference": top["max_relative_difference"].number(),
        "parameters": top["parameters"].integers(2),
        "macs": top["macs"].integers(2),
        "inputs": checked_spec(top["inputs"]),
    }


def _distinct(changes: list[TensorChange]) -> tuple[TensorChange, ...]:
    names = [change.name for change in changes]
    if len(set(names)) != len(names):
        raise ThinningError("recipe.tensors: a name occurs twice")
    return tuple(changes)


def _tensor(item: _Field) -> TensorChange:
    shape, keep = item["shape"].integers(), dict[int, Ranges]()
    for key, kept in item["keep"].mapping().items():
        if key not in map(str, range(len(shape))):
            raise ThinningError(f"{item.path}.keep: {key[:20]!r} is no dimension of shape {list(shape)}")
        keep[int(key)] = _ranges(kept, shape[int(key)])
    return TensorChange(item["name"].text(), shape, KeptRanges(keep))


def _ranges(item: _Field, size: int) -> Ranges:
    pieces, last = [], 0
    for part in item.items():
        start, stop = part.integers(2)
        if not last <= start < stop <= size:
            raise part.error(f"an ascending range within 0..{size}")
        pieces.append((start, stop))
        last = stop
    if not pieces:
        raise item.error("at least one range")
    return tuple(pieces)


def _attribute(item: _Field) -> AttributeChange:
    index = None if item["index"].value is None else item["index"].integer()
    name, module = item["name"].text(), item["module"].text()
    if not all(part.isidentifier() for part in name.split(".")) or name.startswith("_"):
        raise item["name"].error("the name of an attribute")
    return AttributeChange(module, name, index, _size(item["old"]), _size(item["new"]))


def _rescaling(item: _Field) -> Rescaling:
    name = item["attribute"].text()
    if not name.isidentifier() or name.startswith("__"):
        raise item["attribute"].error("the name of an attribute")
    factor, new = item["factor"].number(), item["new"].number()
    if factor <= 0 or new < 0:
        raise item.error("a positive factor and a number that is not negative")
    old = None if item["old"].value is None else item["old"].number()
    return Rescaling(item["name"].text(), factor, item["offset"].number(), item["module"].text(), name, old, new)


def _magnitude(item: _Field) -> Magnitude:
    return Magnitude(item["name"].text(), item["directions"].text(), item["dim"].integer())


def _bias(item: _Field) -> str:
    name = item.text()
    if name.rpartition(".")[2] != "bias":
        raise item.error("the name of a bias")
    return name


def _size(item: _Field) -> int | tuple[int, ...]:
    return item.integers() if isinstance(item.value, list) else item.integer()


def _fold(item: _Field) -> Folding:
    return Folding(
        item["name"].text(), torch.tensor([x.number() for x in item["amounts"].items()], dtype=torch.float64)
    )


def _kept(item: _Field) -> list[tuple[int, str, str]]:
    """Return the fields of each `Kept`."""
    return [(part["channels"].integer(), part["use"].text(), part["reason"].text()) for part in item.items()]
