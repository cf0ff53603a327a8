"""Parameters that processes share (`fully_shard`): which part of a tensor is here, and sums over all parts.

Everything takes plain tensors too: they are their own part, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Span(NamedTuple):
    """The part of a tensor that is here: its first index and its size along each dimension."""

    start: tuple[int, ...]
    size: tuple[int, ...]


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor: known without loading that module, which takes seconds."""
    return hasattr(tensor, "device_mesh")


def refuse_sharded(who: str, names: Iterable[str], model: nn.Module) -> None:
    """Check that parameters are whole.

    Raises:
        ValueError: one is sharded.
    """
    for name in names:
        if is_sharded(model.get_parameter(name)):
            raise ValueError(f"{who} needs whole weights, and {name} is sharded (fully_shard): use it before sharding")


def part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is here, in its own memory."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        local: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return local


def parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the parts of some tensors."""
    return [part(tensor) for tensor in tensors]


def with_part(like: Tensor, local: Tensor) -> Tensor:
    """Return a tensor placed as another one, of which `local` is the part that is here."""
    if not is_sharded(like):
        return local
    from torch.distributed.tensor import DTensor

    whole: Any = like
    return DTensor.from_local(
        local.contiguous(), whole.device_mesh, whole.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def span(tensor: Tensor) -> Span:
    """Return where the part that is here lies in the whole.

    Raises:
        ValueError: the tensor is sharded in another way than in even pieces of a dimension.
    """
    size, start = list(tensor.shape), [0] * tensor.dim()
    for ranks, place, dim in _shardings(tensor):
        # As torch cuts: pieces of the rounded-up size, the last ones shorter or empty.
        step = -(-size[dim] // ranks)
        first = min(step * place, size[dim])
        start[dim] += first
        size[dim] = min(step, size[dim] - first)
    return Span(tuple(start), tuple(size))


def here(values: Tensor, tensor: Tensor) -> Tensor:
    """Return what belongs to the part that is here of values that broadcast to the whole tensor."""
    if is_sharded(tensor):
        for dim, (start, size) in enumerate(zip(*span(tensor), strict=True)):
            if values.shape[dim] > 1 or tensor.shape[dim] == 1:
                values = values.narrow(dim, start, size)
    return values


def placed(values: Tensor, like: Tensor) -> Tensor:
    """Return values of the whole tensor's shape (or a tensor placed as it is), placed as it is: a copy of its type."""
    own = torch.empty_like(part(like))
    if is_sharded(like):
        own.copy_(part(values) if is_sharded(values) else here(values, like))
        return with_part(like, own)
    return own.copy_(values)  # strides like the parameter's


def fill(tensor: Tensor, dim: int, indices: Tensor, value: float) -> None:
    """Set the slices with some indices (of the whole tensor) along a dimension to a value, in place."""
    local = part(tensor)
    if is_sharded(tensor):
        start, size = span(tensor)
        indices = indices[(indices >= start[dim]) & (indices < start[dim] + size[dim])] - start[dim]
    local.index_fill_(dim, indices.to(local.device), value)


def add_parts(sums: Tensor, tensor: Tensor) -> Tensor:
    """Add up, in place, what each part of a tensor makes; the result is the same everywhere."""
    for group in _groups(tensor):
        dist.all_reduce(sums, group=group)
    return sums


def largest_of_parts(values: Tensor, tensor: Tensor) -> Tensor:
    """Return the largest of what each part makes, element by element, in place."""
    for group in _groups(tensor):
        dist.all_reduce(values, dist.ReduceOp.MAX, group=group)
    return values


def count_of(mask: Tensor) -> int:
    """Return how many elements of a whole mask (bool) are True."""
    return int(add_parts(part(mask).sum(), mask))


def every(mask: Tensor) -> bool:
    """Return whether all elements of a whole mask (bool) are True."""
    return bool(part(mask).all()) if not is_sharded(mask) else count_of(mask) == mask.numel()


def mean_and_deviation(tensor: Tensor) -> tuple[float, float]:
    """Return the mean and the sample standard deviation of all elements; 0 where there are too few for it."""
    if not is_sharded(tensor):
        mean = float(tensor.mean()) if tensor.numel() else 0.0
        return mean, float(tensor.std()) if tensor.numel() > 1 else 0.0
    # In two passes: squares less the squared mean would cancel where the mean is large.
    local, count = part(tensor).double(), tensor.numel()
    mean = float(add_parts(local.sum(), tensor)) / max(count, 1)
    squares = float(add_parts((local - mean).square().sum(), tensor))
    return mean, (squares / (count - 1)) ** 0.5 if count > 1 else 0.0


def reshard(model: nn.Module) -> None:
    """Let go of whole parameters that an evaluation has left in place: they would hide what is changed in the parts."""
    for module in model.modules():
        if hasattr(module, "reshard") and hasattr(module, "unshard"):  # torch's FSDPModule
            module.reshard()  # type: ignore[operator]


def first_sharded(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the first that is sharded."""
    return next((tensor for tensor in tensors if is_sharded(tensor)), None)


def counts_here(tensor: Tensor, sharded: Tensor | None) -> bool:
    """Return whether what a tensor gives is to be added up here.

    Of a whole tensor among sharded ones, in one place alone.
    """
    return sharded is None or is_sharded(tensor) or not any(place for _, place, _ in _shardings(sharded))


def _shardings(tensor: Any) -> list[tuple[int, int, int]]:
    """Return (size, this process's place in it, dimension of the tensor) of each dimension of the mesh that shards."""
    if not is_sharded(tensor):
        return []
    mesh, found = tensor.device_mesh, []
    for number, placement in enumerate(tensor.placements):
        if type(placement).__name__ == "Shard":
            found.append((mesh.size(number), mesh.get_local_rank(number), placement.dim % tensor.dim()))
        elif not placement.is_replicate():
            wanted = "masks need Shard or Replicate (fully_shard alone)"
            raise ValueError(f"a parameter is placed as {placement}: {wanted}")
    return found


def _groups(tensor: Any) -> list[dist.ProcessGroup]:
    if not is_sharded(tensor):
        return []
    mesh = tensor.device_mesh
    return [mesh.get_group(number) for number, place in enumerate(tensor.placements) if place.is_shard()]
