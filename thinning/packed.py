"""Tensors with many zeros in a small file: one bit for each element, and the values that are not 0.

A file of the safetensors format. A tensor `w` is either there as it is, or as `w:bits` (uint8, `numpy.packbits` of what
is not 0, in row-major order), `w:values` (in the same order) and `w:shape` (int64). What comes back equals what was
there; -0.0, which a mask makes of each negative weight, comes back as 0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ThinningError

BITS, VALUES, SHAPE = ":bits", ":values", ":shape"
MOST_AXES = 64
"""So many axes tensors of torch have at most."""


def pack_zeros(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the file: those that become smaller as bits and values, the others as they are."""
    return {name: part for own, tensor in tensors.items() for name, part in _packed(own, tensor).items()}


def _packed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    flat = tensor.contiguous().flatten()
    lives = flat != 0
    bits = torch.from_numpy(np.packbits(lives.numpy()))
    packed = {
        name + BITS: bits,
        name + VALUES: flat[lives],
        name + SHAPE: torch.tensor(tensor.shape, dtype=torch.int64),
    }
    return packed if sum(map(_bytes, packed.values())) < _bytes(tensor) else {name: tensor}


def unpack_zeros(stored: Mapping[str, Tensor], room: Callable[[str], int]) -> dict[str, Tensor]:
    """Return the tensors that were packed.

    Args:
        stored: what the file holds.
        room: how many elements the tensor of a name may have; it is asked before memory is taken.

    Raises:
        ThinningError: the parts of a tensor do not fit together, or it is larger than there is room for.
    """
    found = {}
    for name, tensor in stored.items():
        own, colon, part = name.rpartition(":")
        whole = bool(colon) and all(own + end in stored for end in (BITS, VALUES, SHAPE))
        if not whole:
            found[name] = tensor
        elif own in stored:
            raise ThinningError(f"'{own}' is there as it is and packed")
        elif colon + part == BITS:
            found[own] = _unpacked(own, tensor, stored[own + VALUES], stored[own + SHAPE], room(own))
    return found


def _unpacked(name: str, bits: Tensor, values: Tensor, shape: Tensor, room: int) -> Tensor:
    sound = shape.dtype == torch.int64 and shape.dim() == 1 and len(shape) <= MOST_AXES
    sizes: list[Any] = shape.tolist() if sound else [-1]
    number = 1
    for size in sizes:  # in Python's integers, which do not overflow
        number *= size
    if min(sizes, default=0) < 0 or number > room:
        raise ThinningError(f"'{name}' is {sizes} in the file, and has {room} elements at most in the model")
    if bits.dtype != torch.uint8 or bits.dim() != 1 or values.dim() != 1 or len(bits) != -(-number // 8):
        raise ThinningError(f"'{name}': bits and values are not those of a tensor of {sizes}")
    lives = torch.from_numpy(np.unpackbits(bits.numpy(), count=number)).bool()
    if int(lives.sum()) != len(values):
        raise ThinningError(f"'{name}': {int(lives.sum())} bits are set, and there are {len(values)} values")
    flat = torch.zeros(number, dtype=values.dtype)
    try:
        flat[lives] = values
    except RuntimeError as error:  # numbers of a kind that torch stores and does no more with
        raise ThinningError(f"'{name}': its values are of {str(values.dtype).removeprefix('torch.')}") from error
    return flat.view(sizes)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
