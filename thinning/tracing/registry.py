"""The table of operation rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Rule = Callable[[Any], None]  # the argument is a `call.Call`
R = TypeVar("R", bound=Callable[..., None])

RULES: dict[Any, Rule] = {}


def operations(names: str) -> list[Any]:
    """Return the operations of aten with these names, those that this version of torch has."""
    return [getattr(torch.ops.aten, name) for name in names.split() if hasattr(torch.ops.aten, name)]


def rule(*operations: Any) -> Callable[[R], R]:
    """Register a function as the rule of operations such as `torch.ops.aten.relu` (or one overload of it).

    An operation of a library that may not be there is given by its name: "torchvision::roi_align".

    The function receives a `Call`: it reads the planes of the inputs, unites, freezes or uses channels, and says with
    `call.emit` which planes the output has. Without `emit` the output has none. A later registration replaces an
    earlier one, so a model library can bring a rule for its own operation.
    """

    def register(function: R) -> R:
        for operation in operations:
            RULES[operation] = function
        return function

    return register


def rule_of(operation: Any) -> Rule | None:
    """Return the rule of an overload, else that of its operation, else that of its name, else None."""
    schema = getattr(operation, "_schema", None)
    keys = (operation, getattr(operation, "overloadpacket", None), getattr(schema, "name", None))
    return next((RULES[key] for key in keys if key in RULES), None)
