"""What the arguments of a ranking by structures get wrong together, or for the tensors that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..declare.cross_checks import Complaint, Withheld, apart, first
from ..parts.sparsity_rates import falling
from ..parts.structures import FILTERS, Group, find_group, kwargs_problem, placed, shape_problem
from ..parts.weight_norm import direction_problem


def problems(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Return what arguments get wrong together or for the tensors that they name."""
    return apart(
        falling(args) if "final_sparsity" in args else (),
        _kwargs(args),
        splits(args, shapes),
        _sizes(args, shapes) if "group_size" in args else (),
        _unequal(args, shapes),
        _of_coupled(args),
    )


def split_of(group_type: str, kwargs: Mapping[str, Any] | None) -> Group:
    """Return how weights split; coupled channels are made of filters."""
    return FILTERS if group_type == "Coupled" and not kwargs else find_group(group_type, kwargs)


def _kwargs(args: Mapping[str, Any]) -> Iterable[Complaint]:
    group_type, kwargs = args["group_type"], args.get("kwargs")
    problem = kwargs_problem(group_type, kwargs)
    if problem:
        yield "kwargs" if kwargs else "group_type", problem


def _group_of(args: Mapping[str, Any]) -> Group:
    """Return the group; of one that takes no `kwargs` also where some are given."""
    group_type = args["group_type"]
    kwargs = args.get("kwargs") if group_type == "Blocks" else None
    if kwargs_problem(group_type, kwargs):
        raise Withheld
    return split_of(group_type, kwargs)


def splits(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    """Complain of weights that do not have such structures, or must not lose one."""
    group = _group_of(args)
    for name in args["weights"]:
        problem = shape_problem(group, args["group_type"], name, shapes[name])
        if problem:
            yield "group_type", problem
        elif problem := direction_problem(group, name, shapes):
            yield f"weights.{name}", problem


def _counts(names: Iterable[str], args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    """Return how many structures weights have, of those that have any."""
    group = _group_of(args)
    fitting = [name for name in names if not shape_problem(group, "", name, shapes[name])]
    return {name: placed(group, name, shapes).count(shapes[name]) for name in fitting}


def _sizes(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    size = 1 if args["group_type"] == "Coupled" else args["group_size"]
    for name, structures in _counts(args["weights"], args, shapes).items():
        if structures % size:
            yield "group_size", f"{size} does not divide {name}'s {structures} structures"


def _of_coupled(args: Mapping[str, Any]) -> Iterable[Complaint]:
    """Complain of arguments that coupled channels, which are ranked each by itself, do not look at."""
    if args["group_type"] == "Coupled":
        yield from apart(_size_of_coupled(args), _leader_of_coupled(args))


def _size_of_coupled(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if "group_size" in args and args["group_size"] != 1:
        yield "group_size", "Coupled ranks each channel by itself: leave group_size out"


def _leader_of_coupled(args: Mapping[str, Any]) -> Iterable[Complaint]:
    if args.get("group_dependency") is not None:
        yield "group_dependency", "Coupled ranks what belongs together as one: leave Leader out"


def _unequal(args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
    if args["group_type"] == "Coupled" or args.get("group_dependency") != "Leader":
        return
    leader = first(args, "weights")
    counts = _counts(args["weights"], args, shapes)
    for name in counts if leader in counts else ():
        try:
            check_same(leader, counts[leader], name, counts[name])
        except ValueError as error:
            yield f"weights.{name}", str(error)


def check_same(leader: str, wanted: int, name: str, found: int) -> None:
    if found != wanted:
        raise ValueError(f"Leader {leader} decides over {wanted} structures, but {name} has {found}")
