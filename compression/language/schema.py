"""A JSON schema of the language, for editors: made from the registry, so that it knows plugins too."""

from __future__ import annotations

import inspect
import re
from typing import Any

from ..declare.registry import SECTIONS
from .check import NUMBERS
from .policy_check import ARGS
from .signatures import KINDS, OFFERED, arguments, classes
from .times import FORMS, WHEN

Schema = dict[str, Any]
TIMES = {
    "starting_epoch": "The first epoch, counted from 0.",
    "ending_epoch": "The epoch after the last.",
    "frequency": "Act in each n-th epoch (1).",
    "epochs": "Act in exactly these epochs.",
    "starting_minibatch": "The first minibatch, counted from 0 since the start of training.",
    "ending_minibatch": "The minibatch after the last.",
    "minibatch_frequency": "Act at each n-th minibatch (1).",
    "minibatches": "Act at exactly these minibatches.",
}
"""What editors say of the keys that tell when a policy acts."""


def json_schema() -> Schema:
    """Return the schema (draft 2020-12) of schedules with all classes that are registered now."""
    sections = [section for section in SECTIONS if section != "quantizers"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Potstill schedule",
        "type": "object",
        "properties": {
            "version": {"type": ["integer", "number", "string", "null"], "pattern": NUMBERS.pattern},
            **{section: _section(section) for section in sections},
            "policies": {"type": "array", "minItems": 1, "items": _policy()},
        },
        "required": ["policies"],
        "additionalProperties": False,
    }


def _section(section: str) -> Schema:
    known = classes(section)
    variants = [_definition(name, cls) for name, cls in known.items()]
    shape = {"required": ["class"], "properties": {"class": {"enum": sorted(known)}}, "allOf": variants}
    return {"type": ["object", "null"], "additionalProperties": {"type": "object", **shape}}


def _definition(name: str, cls: type) -> Schema:
    """Return what holds where `class` is this one."""
    taken = arguments(cls)
    properties = {"class": {"const": name}, **_properties(cls)}
    required = [key for key, argument in taken.items() if argument.required]
    then = {"properties": properties, "required": required, "additionalProperties": False}
    described = {"description": inspect.cleandoc(cls.__doc__).partition("\n")[0]} if cls.__doc__ else {}
    return {"if": {"properties": {"class": {"const": name}}}, "then": then | described}


def _properties(cls: type) -> Schema:
    """Return the arguments of a class, with their defaults and with what its docstring says of them."""
    described = _described(cls)
    properties: Schema = {}
    for key, argument in arguments(cls).items():
        properties[key] = argument.kind.schema()
        if isinstance(argument.default, (bool, int, float, str)):
            properties[key] |= {"default": argument.default}
        if key in described:
            properties[key] |= {"description": described[key]}
    return properties


def _described(cls: type) -> dict[str, str]:
    """Return the texts of `name: text` lines, one level in, of the docstrings of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found = re.findall(r"^    (\w+): ((?:.|\n {5,})+)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        texts |= {name: re.sub(r"\s+", " ", text) for name, text in found}
    return texts


def _policy() -> Schema:
    times = {key: kind.schema() | {"description": TIMES[key]} for key, kind in WHEN.items()}
    return {
        "type": "object",
        "properties": {kind: _acting(kind) for kind in OFFERED} | times,
        "additionalProperties": False,
        "allOf": [
            {"oneOf": [{"required": [kind]} for kind in OFFERED]},
            {"oneOf": [_times(keys) for _, keys in FORMS]},
        ],
    }


def _times(keys: list[str]) -> Schema:
    """Return one way to say when, and no key of another."""
    others = [key for key in WHEN if key not in keys]
    return {"required": keys[:2], "not": {"anyOf": [{"required": [key]} for key in others]}}


def _acting(kind: str) -> Schema:
    properties = _properties(ARGS[kind]) if kind in ARGS else {}
    args = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    both = {"instance_name": {"type": "string", "description": f"A name in {KINDS[kind]}."}, "args": args}
    return {"type": "object", "properties": both, "required": ["instance_name"], "additionalProperties": False}
