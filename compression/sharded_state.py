"""A scheduler's state where parameters are sharded: tensors alone, as `torch.distributed.checkpoint` stores them best.

`plain` is all that is no part of a sharded tensor, as bytes (so that no checkpoint has anything in it that could run
code); `parts` are the sharded tensors by number, masks and dense copies above all, each process's own part.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .files.checked import CheckpointError, Field, reading
from .files.distributed_metadata import check_metadata
from .processes.ranks import Ranks
from .processes.shards import first_sharded, is_sharded, part, with_part

Where = tuple[Any, ...]


class Loadable(Protocol):
    """What a state is loaded into."""

    model: nn.Module

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `CompressionScheduler.load_state_dict`."""


def pack(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return the state itself, or `plain` and `parts` of it where the model is sharded."""
    if first_sharded(list(model.parameters())) is None:
        return state
    found: dict[Where, Tensor] = {}
    stripped = _strip(state, (), found)
    file = io.BytesIO()
    torch.save({"state": stripped, "paths": [list(where) for where in found]}, file)
    plain = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    return {"plain": plain, "parts": {str(number): tensor for number, tensor in enumerate(found.values())}}


def unpack(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `pack` was given.

    Raises:
        CheckpointError: it is damaged.
    """
    if "plain" not in state:
        return dict(state)
    whole, paths = _plain(state)
    parts = Field(dict(state))["parts"].mapping()
    for number, where in enumerate(paths):
        with reading("parts"):
            inner = whole
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = parts[str(number)].tensor(finite=False)
    return whole


def check_parts(state: Mapping[str, Any], model: nn.Module, ranks: Ranks) -> None:
    """Check that the parts in a state are this process's own: a file that one process wrote holds those of that one.

    Raises:
        CheckpointError: on all ranks: on one of them they are not; or it is no state.
    """
    if not isinstance(state, Mapping):
        raise Field(state, "state").error("a mapping")
    own = {_place(parameter) for parameter in model.parameters() if is_sharded(parameter)}
    parts = state.get("parts")
    found = parts.values() if isinstance(parts, Mapping) else ()
    # torch unpickles a DTensor with the place of the process that stored it.
    foreign = any(is_sharded(tensor) and _place(tensor) not in own for tensor in found)
    if "plain" in state and ranks.largest([foreign])[0]:
        raise CheckpointError(
            "the state holds one process's part of sharded masks (torch.save, or accelerate's save_state): store it"
            " with torch.distributed.checkpoint.save, and take it back with load_distributed"
        )


def _place(tensor: Any) -> tuple[int, ...]:
    """Return this process's place among those that share a tensor."""
    return tuple(tensor.device_mesh.get_coordinate() or ())


def gathered(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state that one process can store: sharded tensors whole, on the CPU. All ranks call it."""
    if "plain" not in state:
        return dict(state)
    whole = {number: sharded.full_tensor().cpu() for number, sharded in state["parts"].items()}
    return unpack({**state, "parts": whole})


def load_distributed(scheduler: Loadable, path: str | Path, key: str = "scheduler") -> None:
    """Take back what `torch.distributed.checkpoint.save({key: scheduler.state_dict(), ...})` wrote.

    `torch.distributed.checkpoint.load` fills what it is given, and a new scheduler has no masks yet that it could fill.
    The number of processes may be another one than then. All ranks call it, after model and optimizer were loaded.

    Args:
        scheduler: made of the same schedule, for the model as it is sharded now.
        path: the folder of the checkpoint.
        key: what the scheduler's state is called in it.

    Raises:
        CheckpointError: (a ValueError) there is no such checkpoint or state, or it does not fit the model.
    """
    import torch.distributed.checkpoint as dcp

    check_metadata(Path(path))
    with reading(str(path)):
        stored = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    sizes: dict[str, Any] = {name: entry for name, entry in stored.items() if name.startswith(f"{key}.")}
    held = sum(file.stat().st_size for file in Path(path).glob("*.distcp"))
    for name, entry in sizes.items():  # anything but a tensor torch would unpickle
        if not isinstance(entry, dcp.TensorStorageMetadata) or entry.size.numel() > held:
            raise CheckpointError(f"{path}: {name} is no tensor that the folder holds")
    if f"{key}.plain" not in sizes:
        raise CheckpointError(f"{path}: holds no state of a scheduler with sharded masks under {key!r}")
    state: dict[str, Any] = {"plain": torch.empty(sizes[f"{key}.plain"].size, dtype=torch.uint8), "parts": {}}
    dcp.load({key: {"plain": state["plain"]}}, checkpoint_id=path)
    _, paths = _plain(state)
    parameters = dict(scheduler.model.named_parameters())
    for number, where in enumerate(paths):
        entry = sizes[f"{key}.parts.{number}"]
        like = next((parameters[name] for name in where if name in parameters), None)
        if like is None or like.shape != entry.size:
            raise CheckpointError(f"{path}: does not fit the model at {'.'.join(map(str, where))}")
        state["parts"][str(number)] = with_part(like, torch.empty_like(part(like), dtype=entry.properties.dtype))
    dcp.load({key: {"parts": state["parts"]}}, checkpoint_id=path)
    scheduler.load_state_dict(state)


def _strip(value: Any, where: Where, found: dict[Where, Tensor]) -> Any:
    """Return the value with nothing in the place of sharded tensors, which go into `found`."""
    if isinstance(value, Tensor) and is_sharded(value):
        found[where] = value
        return None
    if isinstance(value, dict):
        return {key: _strip(item, (*where, key), found) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strip(item, (*where, number), found) for number, item in enumerate(value)]
    return value


def _plain(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[Any]]]:
    with reading("plain"):
        data = Field(dict(state))["plain"].tensor(None, torch.uint8).cpu().numpy().tobytes()
        loaded = Field(torch.load(io.BytesIO(data), weights_only=True))
        loaded["state"].mapping()
        return loaded["state"].value, [[key.value for key in where.items()] for where in loaded["paths"].items()]
