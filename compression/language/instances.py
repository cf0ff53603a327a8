"""Checks the instance definitions of a schedule: `<section>: {<name>: {class: <Class>, <argument>: <value>, …}}`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..names import ParameterIndex, did_you_mean
from ..registry import SECTIONS
from .classes import DROPPED, Argument, arguments, classes, why_unknown
from .errors import Path, Report, one_line, show
from .kinds import Faults
from .plan import InstancePlan


class Checker:
    """Checks definitions against the registry and against a model."""

    def __init__(self, report: Report, model: nn.Module | None) -> None:
        """Take where to report to, and the model (None: names and shapes are not checked)."""
        self.report = report
        self.index = None if model is None else ParameterIndex.of(model)
        self.shapes = {} if model is None else {name: p.shape for name, p in model.named_parameters()}

    def sections(self, data: Mapping[str, Any]) -> dict[tuple[str, str], InstancePlan]:
        """The instances that are right, by section and name."""
        plans = {}
        for section in SECTIONS:
            for name, definition in mapping_of(data, section, self.report).items():
                plan = self.instance(section, name, definition)
                if plan:
                    plans[section, name] = plan
        return plans

    def instance(self, section: str, name: str, definition: Any) -> InstancePlan | None:
        """The plan of one definition, or None if it is wrong."""
        path = (section, name)
        before = len(self.report.problems)
        if not isinstance(definition, Mapping):
            self.report.error(path, f"must be a mapping with `class` and its arguments, not {show(definition)}")
            return None
        cls = self.find_class(section, path, definition)
        if cls is None:
            return None
        taken = arguments(cls)
        given = self.without_dropped(cls, path, definition)
        args = self.read(taken, given, path)
        if len(self.report.problems) == before:
            for where, message in self.contradictions(section, cls, taken, args):
                self.report.error((*path, *self.place(definition, where)), message)
        if len(self.report.problems) > before:
            return None
        return InstancePlan(section, name, cls, args, self.report.line(path))

    def find_class(self, section: str, path: Path, definition: Mapping[str, Any]) -> type | None:
        """The class that a definition names, or None with the reason reported."""
        name = definition.get("class")
        if section == "quantizers":
            what = one_line(name) if isinstance(name, str) else "a quantizer"
            self.report.error(path, f"{what}: quantization is not supported; remove the quantizer and its policies")
        elif "class" not in definition:
            self.report.error(path, f"`class` is missing{did_you_mean('class', definition)}")
        elif not isinstance(name, str):
            self.report.error((*path, "class"), f"must be the name of a class, not {show(name)}")
        elif name not in classes(section):
            self.report.error((*path, "class"), why_unknown(section, name))
        else:
            return classes(section)[name]
        return None

    def without_dropped(self, cls: type, path: Path, definition: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments in a definition, less those that torch once had and that change nothing."""
        given = {key: value for key, value in definition.items() if key != "class"}
        for key in DROPPED & set(given) if issubclass(cls, torch.optim.lr_scheduler.LRScheduler) else ():
            self.report.warn((*path, key), "is ignored: torch has removed it")
            del given[key]
        return given

    def read(self, taken: Mapping[str, Argument], given: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """The arguments as constructors want them; what is wrong is reported."""
        faults = Faults(self.index)
        args = {}
        for key, value in given.items():
            if key in taken:
                args[key] = taken[key].kind.read(value, (*path, key), faults)
            else:
                takes = f"; it takes {', '.join(taken)}" if taken else "; it takes none"
                faults.add((*path, key), f"there is no such argument{did_you_mean(key, taken) or takes}")
        for key, argument in taken.items():
            if argument.required and key not in given:
                faults.add(path, f"the argument `{key}` is missing ({argument.kind.words()})")
        for where, message in faults.found:
            self.report.error(where, message)
        return args

    def contradictions(
        self, section: str, cls: type, taken: Mapping[str, Argument], args: Mapping[str, Any]
    ) -> Iterable[tuple[str, str]]:
        """What the class itself finds wrong with well-typed arguments: (argument path, message)."""
        if section == "lr_schedulers":
            yield from _try_lr_scheduler(cls, args)
        elif hasattr(cls, "problems") and self.index is not None:
            full = {key: argument.default for key, argument in taken.items() if not argument.required} | dict(args)
            for key, value in args.items():
                full[key] = taken[key].kind.resolve(value, self.index)
            yield from cls.problems(full, self.shapes)

    def place(self, definition: Mapping[str, Any], where: str) -> Path:
        """The path of what a class complains of: `weights.conv1.weight` is the entry of `weights` that fits it."""
        key, _, name = where.partition(".")
        written = definition.get(key)
        if not name or isinstance(written, str):
            return (key,) if key else ()
        if self.index is not None and isinstance(written, (Mapping, list)):
            for i, spelling in enumerate(written):
                if isinstance(spelling, str) and name in self.index.matches(spelling):
                    return (key, spelling if isinstance(written, Mapping) else i)
        return (key, name)


def mapping_of(data: Mapping[str, Any], section: str, report: Report) -> Mapping[str, Any]:
    """A section's definitions; an empty one is warned about, anything but a mapping reported."""
    content = data.get(section, {})
    if isinstance(content, Mapping):
        return content
    if content is None:
        report.warn((section,), "is empty")
    else:
        report.error((section,), f"must be a mapping from names to definitions, not {show(content)}")
    return {}


def _try_lr_scheduler(cls: type, args: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What torch says against the arguments, told by two steps of the scheduler on an optimizer of one parameter."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = cls(optimizer, **args)
            for _ in range(2):
                optimizer.step()
                scheduler.step(*[0.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else [])
    except Exception as error:  # whatever torch or a user's class raises is about these arguments
        yield "", f"{cls.__name__} refuses its arguments: {one_line(str(error) or type(error).__name__)}"
