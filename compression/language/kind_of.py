"""Annotations of constructors as kinds of values.

Understood: numbers with a `Range`, truth values, texts, literals, lists, tuples, mappings, unions, and lists and
mappings of `ParameterNames`.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from ..declare.arguments import ParameterNames, Range
from .container_kinds import Either, Entries, Fixed, Items
from .scalar_kinds import Choice, Flag, Kind, Null, Number, Text, Unsayable

SINGLE: list[tuple[Any, Kind]] = [
    (Any, Kind()),
    (bool, Flag()),
    (int, Number(whole=True)),
    (float, Number(whole=False)),
    (str, Text()),
    (None, Null()),
    (type(None), Null()),
]


def kind_of(annotation: Any) -> Kind:
    """Return the kind that an annotation means.

    What a schedule cannot give is `Unsayable`, nothing at all is anything.
    """
    for known, kind in SINGLE:
        if annotation is known:
            return kind
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _narrow(kind_of(args[0]), args[1:])
    if origin is Literal:
        return Choice(args)
    if origin in (typing.Union, types.UnionType):
        return Either(tuple(kind_of(arg) for arg in args))
    return _container(annotation, origin or annotation, args)


def _container(annotation: Any, origin: Any, args: tuple[Any, ...]) -> Kind:
    if origin is tuple and args and args[-1] is not Ellipsis:
        return Fixed(tuple(kind_of(arg) for arg in args))
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection):
        return Items(kind_of(args[0] if args else Any), make=tuple if origin is tuple else list)
    if origin in (dict, collections.abc.Mapping):
        return Entries(kind_of(args[1] if args else Any))
    return Unsayable(getattr(annotation, "__name__", str(annotation)))


def _narrow(kind: Kind, notes: Sequence[Any]) -> Kind:
    """Return the kind with the bounds and marks of an `Annotated`."""
    for note in notes:
        if isinstance(note, Range) and isinstance(kind, Number):
            kind = replace(kind, range=note)
        elif isinstance(note, ParameterNames) and isinstance(kind, Items):
            kind = replace(kind, names=True)
        elif isinstance(note, ParameterNames) and isinstance(kind, Entries):
            kind = replace(kind, names=note)
        elif isinstance(kind, Either):
            kind = Either(tuple(_narrow(option, [note]) for option in kind.options))
    return kind
