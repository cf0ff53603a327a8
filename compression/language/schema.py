"""A JSON schema of the language, for editors: made from the registry, so that it knows plugins too."""

from __future__ import annotations

from typing import Any

from ..registry import SECTIONS
from .classes import KINDS, arguments, classes
from .policies import ARGS, FORMS, WHEN

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The schema (draft 2020-12) of schedules with all classes that are registered now."""
    sections = [section for section in SECTIONS if section != "quantizers"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Potstill schedule",
        "type": "object",
        "properties": {
            "version": {"type": ["integer", "number", "string", "null"]},
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
    """What holds where `class` is this one."""
    taken = arguments(cls)
    properties: Schema = {"class": {"const": name}}
    for key, argument in taken.items():
        properties[key] = argument.kind.schema()
        if isinstance(argument.default, (bool, int, float, str)):
            properties[key] = properties[key] | {"default": argument.default}
    required = [key for key, argument in taken.items() if argument.required]
    then = {"properties": properties, "required": required, "additionalProperties": False}
    described = {"description": cls.__doc__.partition("\n")[0]} if cls.__doc__ else {}
    return {"if": {"properties": {"class": {"const": name}}}, "then": then | described}


def _policy() -> Schema:
    kinds = [kind for kind in KINDS if kind != "quantizer"]
    return {
        "type": "object",
        "properties": {kind: _acting(kind) for kind in kinds} | {key: kind.schema() for key, kind in WHEN.items()},
        "additionalProperties": False,
        "allOf": [
            {"oneOf": [{"required": [kind]} for kind in kinds]},
            {"oneOf": [{"required": keys[:2]} for _, keys in FORMS]},
        ],
    }


def _acting(kind: str) -> Schema:
    taken = arguments(ARGS[kind]) if kind in ARGS else {}
    properties = {key: argument.kind.schema() for key, argument in taken.items()}
    args = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    both = {"instance_name": {"type": "string"}, "args": args}
    return {"type": "object", "properties": both, "required": ["instance_name"], "additionalProperties": False}
