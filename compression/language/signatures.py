"""What a schedule can name: classes by section, and the arguments that their constructors take."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from potstill.near_names import as_question, did_you_mean

from ..declare.arguments import Count, Fraction, NonNegative, Positive, Range
from ..declare.names import meant
from ..declare.registry import SECTIONS, registered
from ..policies import ScheduledTrainingPolicy
from ..pruners import Pruner
from ..regularizers import Regularizer
from .kind_of import kind_of
from .scalar_kinds import Kind

KINDS = {
    "pruner": "pruners",
    "regularizer": "regularizers",
    "quantizer": "quantizers",
    "lr_scheduler": "lr_schedulers",
    "extension": "extensions",
}
OFFERED = [kind for kind in KINDS if kind != "quantizer"]  # Distiller's quantizers are known only to be refused
BASES: dict[str, type] = {
    "pruners": Pruner,
    "regularizers": Regularizer,
    "lr_schedulers": LRScheduler,
    "extensions": ScheduledTrainingPolicy,
}
INJECTED = {"self", "model", "optimizer", "name", "last_epoch", "build_teacher"}
DROPPED = {"verbose"}
TORCH_RANGES: dict[str, Any] = {
    **dict.fromkeys(("step_size", "step_size_up", "total_iters", "T_max", "T_0", "T_mult"), Count),
    **dict.fromkeys(("step_size_down", "total_steps", "epochs", "steps_per_epoch"), Count | None),
    **dict.fromkeys(("patience", "cooldown"), Annotated[int, Range(0)]),
    **dict.fromkeys(("gamma", "factor", "start_factor", "div_factor", "final_div_factor"), Positive),
    **dict.fromkeys(("end_factor", "eta_min", "threshold", "eps"), NonNegative),
    **dict.fromkeys(("base_lr", "max_lr", "min_lr"), NonNegative | list[NonNegative]),
    **dict.fromkeys(("base_momentum", "max_momentum"), Fraction | list[Fraction]),
    "pct_start": Fraction,
    "milestones": list[Count],
    "scale_fn": Callable,
}
"""What torch's own signatures leave open: a negative learning rate would climb the loss."""
NEEDS_PYTHON = {
    "LambdaLR": "a Python function (lr_lambda)",
    "MultiplicativeLR": "a Python function (lr_lambda)",
    "ChainedScheduler": "other scheduler objects",
    "SequentialLR": "other scheduler objects",
}


@dataclass(frozen=True)
class Argument:
    """An argument of a constructor: what it takes, and its default unless it is required."""

    kind: Kind
    required: bool
    default: Any = None


def torch_lr_schedulers() -> Mapping[str, type]:
    """Return the public schedulers of `torch.optim.lr_scheduler` that need nothing but plain values."""
    return {
        name: cls
        for name, cls in vars(lr_scheduler).items()
        if inspect.isclass(cls)
        and issubclass(cls, LRScheduler)
        and not name.startswith("_")
        and name not in {"LRScheduler", *NEEDS_PYTHON}
    }


def classes(section: str) -> Mapping[str, type]:
    """Return the classes of a section by name; registered ones hide torch's."""
    extra = torch_lr_schedulers() if section == "lr_schedulers" else {}
    return {**extra, **registered(section)}


def why_unknown(section: str, name: str) -> str:
    """Return what to say of a name that is no class of the section."""
    if section == "lr_schedulers" and name in NEEDS_PYTHON:
        return f"{name} takes {NEEDS_PYTHON[name]}, which a schedule cannot give: register a class of your own instead"
    for other in SECTIONS:
        if name in classes(other):
            return f"{name} belongs in {other}, not in {section}"
    every = [known for other in SECTIONS for known in classes(other)]
    near = [known for known in classes(section) if _initials(known) == name.lower()]  # AGP
    hint = as_question(near) or did_you_mean(name, classes(section)) or did_you_mean(name, every)
    return f"there is no class {name}{hint}"


def _initials(name: str) -> str:
    return "".join(filter(str.isupper, name)).lower()


def class_meant(section: str, name: str) -> type | None:
    """Return the class that a name surely means which is none of the section.

    One of another section, or a misspelled one.
    """
    for other in SECTIONS:
        if name in classes(other):
            return classes(other)[name]
    known = classes(section)
    return known.get(meant(name, known) or "")


@cache
def arguments(make: type) -> Mapping[str, Argument]:
    """Return the arguments of a class that a schedule gives, by name: all but those that the loader itself passes."""
    hints = {**(_hints(make) if is_dataclass(make) else {}), **_hints(make.__init__)}  # type: ignore[misc]
    ranges = TORCH_RANGES if make.__module__ == lr_scheduler.__name__ else {}
    return {
        name: Argument(
            kind_of(ranges.get(name, hints.get(name, Any))),
            parameter.default is inspect.Parameter.empty,
            parameter.default,
        )
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and name not in INJECTED | DROPPED
    }


def injected(cls: type, offers: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offers (`model`, `optimizer`, `name`, `build_teacher`) that the constructor takes."""
    return {name: offers[name] for name in inspect.signature(cls).parameters if name in offers}


def _hints(of: Any) -> dict[str, Any]:
    """Return the annotations; those of other people that do not evaluate are left out."""
    try:
        return typing.get_type_hints(of, include_extras=True)
    except (NameError, TypeError, AttributeError):
        written, space = getattr(of, "__annotations__", {}), getattr(of, "__globals__", {})
    found: dict[str, Any] = {}
    for name, annotation in written.items():
        with suppress(NameError, TypeError, AttributeError):
            one = SimpleNamespace(__annotations__={name: annotation})
            found |= typing.get_type_hints(one, space, include_extras=True)
    return found
