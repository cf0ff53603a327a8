"""Channel numbers lie on the CPU, whatever default device the user has chosen (`torch.set_default_device`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_chosen: ContextVar[torch.device | None] = ContextVar("_chosen", default=None)


def default_device() -> torch.device:
    """Return the device on which tensors are made that name none."""
    try:
        return torch.get_default_device()
    except AttributeError:  # torch 2.6 after `set_default_device(None)`, which takes it back to the CPU
        return torch.device("cpu")


def on_cpu(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function make its tensors on the CPU; models that it runs find the user's default device."""

    @wraps(function)
    def inner(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        default = default_device()
        if default.type == "cpu":
            return function(*args, **kwargs)
        token = _chosen.set(default)
        try:
            with torch.device("cpu"):
                return function(*args, **kwargs)
        finally:
            _chosen.reset(token)

    return inner


@contextmanager
def users_default() -> Iterator[None]:
    """Give the user's code its default device while it runs."""
    chosen = _chosen.get()
    if chosen is None:
        yield
    else:
        with chosen:
            yield
