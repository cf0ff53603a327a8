"""The state of an optimizer from a file: checked against what the optimizer itself would keep."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .checked import CheckpointError, Field


def load_optimizer_state(optimizer: Optimizer, stored: Field) -> None:
    """Give an optimizer the state of a file.

    Raises:
        CheckpointError: groups, hyperparameters or tensors are not those that the optimizer would have.
    """
    own, groups = optimizer.state_dict()["param_groups"], stored["param_groups"].items()
    if len(groups) != len(own):
        raise stored["param_groups"].error(f"{len(own)} groups")
    for stored_group, live in zip(groups, own, strict=True):
        _check_group(stored_group, live)
    merged = [{**live, **stored_group.value} for stored_group, live in zip(groups, own, strict=True)]
    kinds = zip(optimizer.param_groups, merged, strict=True)
    parameters = [(p, group) for live, group in kinds for p in live["params"]]
    for group in merged:  # the optimizer's class says what it does not take
        _sample(type(optimizer), group, torch.zeros(0))
    kept = stored["state"].value
    if not isinstance(kept, dict) or not all(type(i) is int and 0 <= i < len(parameters) for i in kept):
        raise stored["state"].error(f"a mapping of {len(parameters)} parameters' numbers")
    for number, value in kept.items():
        parameter, group = parameters[number]
        entry = Field(value, f"{stored.path}.state.{number}")
        _check_entry(entry, parameter, _sample(type(optimizer), group, parameter))
    optimizer.load_state_dict({"state": kept, "param_groups": merged})


def _check_group(group: Field, live: Mapping[str, Any]) -> None:
    for name, value in group.only(live).mapping().items():
        value.like(live[name])
        if type(value.value) in (int, float) and value.number() < 0:
            raise value.error("a number of at least 0")
    if group["params"].value != live["params"]:
        raise group["params"].error(f"the numbers of {len(live['params'])} parameters in their order")


def _check_entry(entry: Field, parameter: Tensor, sample: Mapping[str, Any]) -> None:
    """Check what is kept of one parameter by what is kept of another one."""
    entry.only(sample)
    for name, like in sample.items():
        if isinstance(like, Tensor):
            shape = parameter.shape if like.dim() else ()
            found = entry[name].tensor(shape, torch.float32, parameter.dtype)
            if not like.dim() and found < 0:
                raise CheckpointError(f"{entry[name].path}: expected a number of at least 0, found {found}")
        elif entry[name].value is not None:
            entry[name].number()


def _sample(kind: type[Optimizer], group: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Return what an optimizer keeps of a parameter of two dimensions after its first step."""
    known = inspect.signature(kind).parameters
    probe = nn.Parameter(torch.zeros(2, 3, dtype=parameter.dtype, device=parameter.device))
    optimizer = kind([probe], **{name: value for name, value in group.items() if name in known and name != "params"})
    probe.grad = torch.zeros_like(probe)
    optimizer.step()
    return optimizer.state[probe]
