"""Finds schedules by path or by the name of a shipped one, and imports plugins."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Callable
from importlib.resources import files
from itertools import islice
from pathlib import Path
from types import ModuleType

from potstill.near_names import as_question, near_names

from ..declare.registry import SECTIONS, registered
from .errors import Problem, ScheduleError

logger = logging.getLogger(__name__)

SUFFIXES = ("", ".yaml", ".yml")


class PluginError(ValueError):
    """A plugin could not be imported, or it registers nothing."""


def find_schedule(name_or_path: str | Path) -> Path:
    """Return the file of a schedule: a path (`.yaml` may be left out), or the name of a shipped schedule.

    Raises:
        ScheduleError: there is no such file, or the name fits several shipped ones.
    """
    wanted = str(name_or_path)
    for suffix in SUFFIXES:
        if os.path.isfile(wanted + suffix):  # unlike Path.is_file, never raises for a strange name
            return Path(wanted + suffix)
    shipped = shipped_schedules()
    bare = wanted.removesuffix(".yaml")
    fitting = [path for name, path in shipped.items() if bare in (name, path.stem)]
    if len(fitting) == 1:
        _tell(wanted, fitting[0])
        return fitting[0]
    if fitting:
        which = ", ".join(name for name, path in shipped.items() if path in fitting)
        raise ScheduleError([Problem(wanted, None, "", f"fits several shipped schedules: {which}")])
    what = "no such file here, and no shipped schedule has this name"
    if os.path.lexists(wanted) and not os.path.isfile(wanted):
        what = "is a folder" if os.path.isdir(wanted) else "is not a file that can be read"
    similar = _similar(Path(wanted), shipped)
    hint = as_question(similar) or _some(shipped)
    raise ScheduleError([Problem(wanted, None, "", f"{what}{hint}")])


def _tell(wanted: str, path: Path) -> None:
    """Say that a shipped schedule is taken: as a warning where what was asked for reads like a file."""
    if Path(wanted).suffix in SUFFIXES[1:]:
        logger.warning("%s: no such file here; taken is the shipped schedule %s", wanted, path)
    else:
        logger.info("schedule %s: the shipped %s", wanted, path)


def _similar(wanted: Path, shipped: dict[str, Path]) -> list[str]:
    """Return what a mistyped name may have meant: files beside it, and shipped schedules."""
    beside = wanted.parent.glob("*.y*ml") if os.path.isdir(wanted.parent) else []
    here = {path.stem: f"the file {path}" for path in sorted(beside) if path.is_file()}
    names = {path.stem: f"the shipped schedule {name}" for name, path in shipped.items()}
    return [
        *(here[stem] for stem in near_names(wanted.stem, here, 1)),
        *(names[stem] for stem in near_names(wanted.stem, names, 2)),
    ]


def shipped_schedules() -> dict[str, Path]:
    """Return the schedules that come with the package, by their path inside it without suffix."""
    try:
        folder = Path(str(files("potstill.schedules")))
    except ModuleNotFoundError:
        return {}
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def load_plugin(path: str | Path, brings: Callable[[str], bool] | None = None) -> ModuleType:
    """Import a Python file that registers classes of its own for schedules to name.

    Args:
        path: the file.
        brings: whether a module of this name registered something else than classes of schedules: a network, say.

    Raises:
        PluginError: there is no such file, it fails, or it registers nothing.
    """
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise PluginError(f"plugin {path}: {'is not a Python file (.py)' if file.exists() else 'no such file'}")
    name = f"potstill_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"plugin {_where(error, file)}: {type(error).__name__}: {error}") from error
    classes = any(cls.__module__ == name for section in SECTIONS for cls in registered(section).values())
    if not classes and not (brings and brings(name)):
        others = ", or @register_model or @register_dataset above a function" if brings else ""
        raise PluginError(f"plugin {path}: registers nothing: put @register(section) above a class{others}")
    return module


def _where(error: Exception, file: Path) -> str:
    """Return the file and the last of its lines that the error came through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{file}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == os.path.abspath(file)]
    return f"{file}:{lines[-1]}" if lines else str(file)


def _some(shipped: dict[str, Path]) -> str:
    return f"; there are {', '.join(islice(shipped, 10))}" if shipped else ""
