"""One run in many processes, as torchrun starts them: who they are, how they join, what they agree on at each step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from potstill.compression.processes.ranks import Ranks

LOST = (
    "Connection closed by peer",
    "Read error",
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "NCCL",
    "Timed out waiting",
    "Socket Timeout",
)
"""How torch says that another process is gone."""


def started() -> int:
    """Return how many processes torchrun (or who sets the same variables) started for this run; else 1."""
    known = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return int(os.environ["WORLD_SIZE"]) if known else 1


def rank() -> int:
    """Return the number of this process among them."""
    return int(os.environ["RANK"]) if started() > 1 else 0


def leads() -> bool:
    """Return whether this process writes folder, log and checkpoints, and talks."""
    return rank() == 0


def own_device(name: str) -> str:
    """Return the device of this process where the option names a kind: the GPU of its number on this machine."""
    many = started() > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available()))
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(torch.cuda.device_count(), 1)}" if many else name


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Be one of the processes of a run: nccl where each has a GPU of its own, else gloo."""
    if started() == 1:
        yield
        return
    on_gpu = own_device(device).startswith("cuda") and dist.is_nccl_available()
    alone = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
    if on_gpu:
        torch.cuda.set_device(own_device(device))
    dist.init_process_group("nccl" if on_gpu and alone else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: others may be gone


def first_to_say(text: str) -> bool:
    """Return whether no other process of the run has said this: all find the same mistakes in options and files."""
    if started() == 1 or not dist.is_initialized():
        return leads()
    try:
        store = dist.distributed_c10d._get_default_store()
        return int(store.add(f"said/{text[:200]}", 1)) == 1
    except RuntimeError:  # the process that holds the store is gone
        return True


def lost(error: BaseException) -> bool:
    """Return whether an error only says that another process of the run is gone."""
    return started() > 1 and isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)


def wrapped(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Return what the loop calls: the network, or with several processes DistributedDataParallel around it."""
    return DistributedDataParallel(model) if ranks.size > 1 else model


class Agreement:
    """Flags that any process may raise and all see, one step later: so the message costs no wait."""

    def __init__(self, ranks: Ranks, count: int) -> None:
        """Take the ranks and the number of flags."""
        self._ranks, self._count = ranks, count
        self._posted: tuple[Any, Tensor] | None = None

    def post(self, flags: list[bool]) -> list[bool]:
        """Say this process's flags; return what the step before said on all (with one process: the flags)."""
        if self._ranks.size == 1:
            return flags
        seen = self.settle()
        self._posted = self._ranks.post([int(flag) for flag in flags])
        return seen

    def settle(self) -> list[bool]:
        """Return what was said last on all."""
        if self._posted is None:
            return [False] * self._count
        work, values = self._posted
        work.wait()
        self._posted = None
        return [bool(value) for value in values.tolist()]
