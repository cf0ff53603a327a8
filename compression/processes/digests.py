"""Whether ranks hold the same, told by digests: one message of a few bytes where they do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .ranks import Ranks
from .shards import is_sharded

CHUNK = 1 << 20
MULTIPLIER, INCREMENT = 0x9E3779B97F4A7C1, 0x632BE59BD9B4E01
"""Odd numbers without pattern: an element's place changes what it adds to the sum."""
LANES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


CALL = "call"


class RanksDiffer(RuntimeError):  # noqa: N818 -- says what it is in the words that users read
    """Ranks of one training hold different schedules, masks, gates or states, or are not at the same call."""


def must_be_same(parts: Mapping[str, Any], ranks: Ranks, when: str) -> None:
    """Check that all ranks hold the same; one message where they do, a second one where they do not.

    Args:
        parts: tensors and plain data, by what they are called.
        ranks: the ranks; where there is one, nothing is computed.
        when: the call in which the ranks meet, the same on all.

    Raises:
        RanksDiffer: on all ranks: they do not; says what differs first.
    """
    if ranks.size == 1:
        return
    found = {CALL: when, **digests(parts)}
    # Seven bytes: the number and its negative must fit a signed integer of 64 bits. If the largest number and the
    # largest negative agree, all ranks have the same: one reduction instead of a gathering.
    whole = int.from_bytes(hashlib.sha256(repr(found).encode()).digest()[:7], "little")
    most, least = ranks.largest([whole, -whole])
    if most == -least:
        return
    every = ranks.all(found)
    _must_meet([one.pop(CALL) for one in every])
    names = dict.fromkeys(name for one in every for name in one)
    differing = [name for name in names if len({one.get(name) for one in every}) > 1]
    first = every[0].get(differing[0]) if differing else None
    others = ", ".join(str(rank) for rank, one in enumerate(every) if differing and one.get(differing[0]) != first)
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    raise RanksDiffer(
        f"{when}: ranks differ in {differing[0] if differing else 'the order of their parts'}{more}: rank 0 has another"
        f" one than rank {others}. All ranks need the same schedule, the same weights (DistributedDataParallel keeps"
        " them so) and as many forward passes; ranks that train different networks give the scheduler process_group"
    )


def _must_meet(calls: Sequence[str]) -> None:
    """Check that all ranks, in order, make the same call: one that is ahead must not take another's answer for its own.

    Raises:
        RanksDiffer: they do not.
    """
    first = {call: rank for rank, call in reversed(list(enumerate(calls)))}
    if len(first) > 1:
        told = ", ".join(f"rank {rank} is at {call}" for call, rank in sorted(first.items(), key=lambda item: item[1]))
        raise RanksDiffer(f"{told}: all ranks need as many epochs, and as many minibatches in each, and the same calls")


def digests(parts: Mapping[str, Any]) -> dict[str, int | str]:
    """Return a short digest of each tensor and value, nested ones under the path that leads to them.

    Of sharded tensors shape and type: each part of them exists once.
    """
    leaves = [leaf for name, value in parts.items() for leaf in _leaves(name, value)]
    tensors = {name: value for name, value in leaves if isinstance(value, Tensor) and not is_sharded(value)}
    sums = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    shown: dict[str, int | str] = {}
    for device in {digest.device for digest in sums.values()}:  # one wait for each device
        here = [name for name, digest in sums.items() if digest.device == device]
        shown.update(zip(here, torch.stack([sums[name] for name in here]).tolist(), strict=True))
    return {
        name: f"{tuple(value.shape)} {value.dtype} {shown.get(name)}" if isinstance(value, Tensor) else repr(value)
        for name, value in leaves
    }


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, (list, tuple)):
        entries = enumerate(value)
    else:
        yield name, value
    for key, item in entries:
        yield from _leaves(f"{name}.{key}", item)


@torch.no_grad()
def tensor_digest(tensor: Tensor) -> Tensor:
    """Return a number of a tensor's bits and their places, computed where it lies.

    A sum of products that wraps around.
    """
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    bits = flat.view(LANES[flat.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for number, chunk in enumerate(bits.split(CHUNK)):
        places = torch.arange(len(chunk), device=flat.device) + number * CHUNK
        # A factor for each place, odd (an even one would lose the highest bits), so that two swapped elements change
        # the sum. Integers wrap around alike on every device, where floating-point sums depend on the order.
        factors = (places * MULTIPLIER + INCREMENT) ^ (places << 29)
        total += ((chunk.long() + 1) * (factors | 1)).sum()
    return total
