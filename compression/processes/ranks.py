"""The processes that train one network together: few, small messages between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LONGEST = timedelta(minutes=30)
"""How long a message is waited for where the process group does not say: torch's default for gloo."""


class Ranks:
    """The ranks of a process group, or this process alone where there is none.

    Every method is collective: all ranks call it in the same order. With one rank nothing is sent. Tensors travel over
    the group itself, on their device. Plain data and digests travel over a gloo group of the same ranks: no GPU waits
    for them, and they are never mistaken for a message of data parallel training.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Take the group; None is the default group, which may come into being later.

        Raises:
            ValueError: this process is not in the group.
        """
        if group is not None and dist.get_rank(group) < 0:
            raise ValueError("process_group: this process is not in it; give the group of the ranks that train alike")
        self.group = group
        self._control: tuple[Any, Any] = (None, None)

    def __deepcopy__(self, memo: Any) -> Ranks:
        """Return the same processes: a copied model may lead here by its hooks."""
        return self

    @property
    def size(self) -> int:
        """The number of ranks."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """The number of this one."""
        return dist.get_rank(self.group) if self.size > 1 else 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their sums over ranks, in one message."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat, group=self.group)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their means over ranks, in one message."""
        if self.size > 1 and tensors:
            self.add(tensors)
            torch._foreach_div_(list(tensors), self.size)

    def follow_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of rank 0, in a message for each type and device."""
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors if self.size > 1 else ():
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for alike in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in alike])
            dist.broadcast(flat, group=self.group, group_src=0)
            for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def first(self, value: Any) -> Any:
        """Rank 0's value (plain data)."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self._messages(), group_src=0)
        return values[0]

    def all(self, value: Any) -> list[Any]:
        """Return the value of each rank (plain data and tensors on the CPU)."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self._messages())
        return values

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Return the largest of each number over ranks."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._messages())
        return found.tolist()

    def post(self, numbers: Sequence[int]) -> tuple[Any, Tensor]:
        """Begin to find the largest of each number over ranks: what to wait for, and where they will be."""
        found = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        return dist.all_reduce(found, dist.ReduceOp.MAX, group=self._messages(), async_op=True), found

    def _messages(self) -> dist.ProcessGroup:
        """Return the gloo group, made when it is first needed."""
        default = dist.group.WORLD
        if self._control[0] is not default:  # a default group of before may be gone
            members = dist.get_process_group_ranks(self.group or default)
            made = dist.new_group(members, self._timeout(), "gloo", use_local_synchronization=True)
            self._control = default, made
        control: dist.ProcessGroup = self._control[1]
        return control

    def _timeout(self) -> timedelta:
        """Return how long the group itself waits."""
        group: Any = self.group or dist.group.WORLD
        with suppress(AttributeError, RuntimeError):  # torch has no public way to ask
            return group._get_backend(group._device_types[0]).options._timeout
        return LONGEST
