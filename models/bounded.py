"""Bounds on networks that a stranger describes: they hold while a network is made, before it takes memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from .info import ModelError

ELEMENTS = 2**28
"""Elements of a network, 1 GiB in float32, that are no cause for suspicion."""
TENSORS = 5000
"""Parameters, ten times those of the largest image classifiers, that a network without weights may have."""
MODULES = 1000
"""So many for each tensor: most have one or two."""


class TooLargeError(ModelError):
    """A network is larger than it may be."""


@contextmanager
def at_most(elements: int, tensors: int) -> Iterator[None]:
    """While it lasts, networks are made without memory (on the `meta` device), and none that is larger.

    Args:
        elements: of all parameters and buffers together.
        tensors: how many parameters.

    Raises:
        TooLargeError: from the constructor that goes on.
    """
    left = {"elements": elements, "tensors": tensors, "modules": MODULES * (tensors + 1)}

    def count(kind: str, number: int = 1) -> None:
        left[kind] -= number
        if left[kind] < 0:
            raise TooLargeError("its config describes a larger network than the one whose weights are here")

    def count_elements(owner: object, name: str, tensor: Tensor | None) -> None:
        count("elements", 0 if tensor is None else tensor.numel())

    handles = [
        torch_module.register_module_parameter_registration_hook(lambda owner, name, parameter: count("tensors")),
        torch_module.register_module_parameter_registration_hook(count_elements),
        torch_module.register_module_buffer_registration_hook(count_elements),
        torch_module.register_module_module_registration_hook(lambda owner, name, module: count("modules")),
    ]
    try:
        with torch.device("meta"):
            yield
    finally:
        for handle in handles:
            handle.remove()
