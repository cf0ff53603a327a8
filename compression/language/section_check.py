"""Checks the instance definitions of a schedule: `<section>: {<name>: {class: <Class>, <argument>: <value>, …}}`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from potstill.thinning.files.text import printable

from ..declare.cross_checks import Complaint, Given, Shapes, Withheld
from ..declare.names import ParameterIndex, misspelled
from ..declare.registry import SECTIONS
from ..policies.learning_rate import trial
from .argument_check import faults_in_all, read
from .errors import Path, Report, failed, show
from .plan import InstancePlan
from .signatures import BASES, DROPPED, Argument, arguments, class_meant, classes, why_unknown


class Checker:
    """Checks definitions against the registry and against a model.

    Attributes:
        known: of each definition with a class of its section: the class, and what is right of its arguments.
    """

    def __init__(self, report: Report, model: nn.Module | None) -> None:
        """Take where to report to, and the model (None: names and shapes are not checked)."""
        self.report = report
        self.index = None if model is None else ParameterIndex.of(model)
        self.shapes = Shapes(model)
        self.known: dict[Path, tuple[type, Given]] = {}

    def sections(self, data: Mapping[str, Any]) -> dict[tuple[str, str], InstancePlan]:
        """Return the instances that are right, by section and name."""
        plans = {}
        for section in SECTIONS:
            for name, definition in mapping_of(data, section, self.report).items():
                plan = self.instance(section, (section, name), definition)
                if plan:
                    plans[section, name] = plan
        return plans

    def instance(self, section: str, path: Path, definition: Any) -> InstancePlan | None:
        """Return the plan of the definition at a path, or None if it is wrong."""
        before = len(self.report.problems)
        if not isinstance(definition, Mapping):
            self.report.error(path, f"must be a mapping with `class` and its arguments, not {show(definition)}")
            return None
        cls = self.find_class(section, path, definition)
        if cls is None:
            self.check_without_class(section, path, definition)
            return None
        written = self.without_dropped(cls, path, definition)
        args, given = self.read(arguments(cls), written, path)
        if cls in classes(section).values():
            self.known[path] = cls, given
        for where, message in self.contradictions(section, cls, given):
            self.report.error((*path, *self.place(written, where)), message)
        if len(self.report.problems) > before:
            return None
        return InstancePlan(section, str(path[-1]), cls, args, self.report.line(path))

    def find_class(self, section: str, path: Path, definition: Mapping[str, Any]) -> type | None:
        """Return the class that a definition names or surely means; what is wrong with the name is reported."""
        name = definition.get("class")
        if section == "quantizers":
            what = printable(name) if isinstance(name, str) else "a quantizer"
            self.report.error(path, f"{what}: quantization is not supported; remove the quantizer and its policies")
        elif "class" not in definition:
            self.report.error(path, f"`class` is missing{misspelled('class', definition)}")
        elif not isinstance(name, str):
            self.report.error((*path, "class"), f"must be the name of a class, not {show(name)}")
        elif name not in classes(section):
            self.report.error((*path, "class"), why_unknown(section, name))
            return class_meant(section, name)
        elif not issubclass(cls := classes(section)[name], BASES[section]):
            self.report.error((*path, "class"), f"{name} must be derived from {BASES[section].__name__}")
        else:
            return cls
        return None

    def check_without_class(self, section: str, path: Path, definition: Mapping[str, Any]) -> None:
        """Report what is wrong with the arguments whichever class of the section is meant."""
        signatures = [arguments(cls) for cls in classes(section).values()]
        for where, message in faults_in_all(signatures, definition, path, self.index):
            self.report.error(where, message)

    def without_dropped(self, cls: type, path: Path, definition: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in a definition, less those that torch once had and that change nothing."""
        given = {key: value for key, value in definition.items() if key != "class"}
        for key in DROPPED & set(given) if issubclass(cls, LRScheduler) else ():
            self.report.warn((*path, key), "is ignored: torch has removed it")
            del given[key]
        return given

    def read(self, taken: Mapping[str, Argument], written: Mapping[str, Any], path: Path) -> tuple[Any, Given]:
        """Return the arguments as constructors want them, and what is right of them; what is wrong is reported."""
        reading = read(taken, written, path, self.index, self.report.twice.get(path[:2], ()))
        for where, message in reading.faults:
            self.report.error(where, message)
        return reading.args, reading.given

    def contradictions(self, section: str, cls: type, given: Given) -> list[Complaint]:
        """Return what the class itself finds wrong with well-typed arguments."""
        found = []
        if hasattr(cls, "problems"):
            who = f"{cls.__name__}.problems"
            found = list(self.ask(who, lambda: cls.problems(given, self.shapes), given.complete))
        if section == "lr_schedulers" and given.complete and not found:
            found = list(_try_lr_scheduler(cls, {name: given[name] for name in given.written}))
        return found

    def ask(self, who: str, check: Callable[[], Iterable[Complaint]], complete: bool) -> Iterator[Complaint]:
        """Return what a check finds.

        One that was not written for a part of the arguments may fail on it, and then ends.
        """
        try:
            yield from check()
        except Withheld:
            return
        except Exception as error:  # a plugin's
            if complete and self.index is not None:
                yield "", failed(who, error)

    def place(self, definition: Mapping[str, Any], where: str) -> Path:
        """Return the path of what a class complains of.

        `weights.conv1.weight` is the entry of `weights` that fits it.
        """
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
    """Return a section's definitions; an empty one is warned about, anything but a mapping reported."""
    content = data.get(section, {})
    if isinstance(content, Mapping):
        return content
    if content is None:
        report.warn((section,), "is empty")
    else:
        report.error((section,), f"must be a mapping from names to definitions, not {show(content)}")
    return {}


def _try_lr_scheduler(cls: type, args: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Try the arguments in two steps of torch's scheduler on an optimizer of one parameter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = trial(cls, args)
            for _ in range(2):
                scheduler.optimizer.step()
                scheduler.step(*([0.0] if isinstance(scheduler, ReduceLROnPlateau) else []))  # type: ignore[arg-type]
    except Exception as error:  # whatever torch or a user's class raises is about these arguments
        yield "", f"{cls.__name__} refuses its arguments: {printable(str(error) or type(error).__name__)}"
