"""What the command line's options take: each is called with a text, and returns its value or says what is wrong."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from potstill.models import model_info, model_names
from potstill.models.datasets import dataset_names
from potstill.near_names import did_you_mean

from ..exports import exports
from ..monitors.checkpoint_interval import Interval
from ..monitors.stopping_rules import parse_rule
from ..monitors.trajectory import TrajectoryOption
from .distiller_options import EARLY_EXIT

LIBRARIES = ("timm/", "transformers/")
"""What the names of their networks begin with."""


@dataclass(frozen=True)
class Number:
    """A finite number, perhaps a whole one, within bounds that `what` tells."""

    kind: type[int] | type[float]
    what: str
    fits: Callable[[float], bool]
    most: float = 2**31 - 1

    def __call__(self, text: str) -> float:
        """Read a text of the command line."""
        if self.kind is int and len(text.lstrip("0")) > len(str(self.most)):  # int() refuses very long ones
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is not {self.what}, or above {self.most}")
        try:
            if self.kind is int and not (text.isascii() and text.isdecimal()):  # int() takes "1_000" and " 1" too
                raise ValueError
            return self.checked(self.kind(text), text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.what}") from None

    def checked(self, value: float, text: str = "") -> float:
        """Return a value that is a number already, from a file; `text` is what the user wrote for it."""
        if not (isinstance(value, (int, self.kind)) and math.isfinite(value) and self.fits(value)):
            raise argparse.ArgumentTypeError(f"{text or repr(value)} is not {self.what}")
        if self.kind is int and value > self.most:
            raise argparse.ArgumentTypeError(f"{text or value} is above {self.most}")
        return value


number = Number(float, "a number of 0 or more", lambda value: value >= 0)
positive = Number(float, "a number above 0", lambda value: value > 0)
share = Number(float, "a number above 0 and at most 1", lambda value: 0 < value <= 1)
part = Number(float, "a number of 0 or more and below 1", lambda value: 0 <= value < 1)
decay = Number(float, "a number of 0 or more and at most 0.999999", lambda value: 0 <= value <= 0.999999)
count0 = Number(int, "a whole number of 0 or more", lambda value: value >= 0)
count = Number(int, "a whole number of 1 or more", lambda value: value >= 1)
seed = Number(int, count0.what, count0.fits, most=2**63 - 1)
"""What every generator takes."""
workers = Number(int, count0.what, count0.fits, most=256)


@dataclass(frozen=True)
class _OrAuto(Number):
    """A number, or `auto`, which stands as 0."""

    def __call__(self, text: str) -> float:
        """Read a text of the command line."""
        return 0 if text == "auto" else count(text)


multiple = _OrAuto(int, count0.what, count0.fits)

LARGEST_SIDE = 1024
"""Of an image, so that a checkpoint's size is none that takes any memory."""


def architecture(text: str) -> str:
    """Return the name of a network, or `list`; a folder of transformers as an absolute path."""
    if text.startswith(LIBRARIES):
        return _of_a_library(*text.split("/", 1))
    if text == "list" or text in model_names() or text.lower() in model_names():
        return text if text in model_names() else text.lower()
    why = EARLY_EXIT if "earlyexit" in text.lower() else "--arch list names all"
    raise argparse.ArgumentTypeError(f"{_unknown('network', text, model_names())}; {why}")


def dataset(text: str) -> str:
    """Return the name of a data set."""
    if text in dataset_names():
        return text
    raise argparse.ArgumentTypeError(_unknown("data set", text, dataset_names()))


def rule(text: str) -> str:
    """Return a rule of early stopping."""
    return _checked(parse_rule, text)


def trajectory(text: str) -> str:
    """Return patterns of parameters and an interval."""
    return _checked(TrajectoryOption.parse, text)


def every(text: str) -> str:
    """Return a number of minibatches or minutes."""
    return _checked(Interval, text)


def image_size(text: str) -> str:
    """Return the height and width of images."""
    return _checked(sides, text)


def sides(text: str) -> tuple[int, int]:
    """Return height and width, of `224` or `224x160`.

    Raises:
        ValueError: they are none, or very large.
    """
    found = [int(side) for side in text.split("x") if side.isascii() and side.isdecimal() and len(side) < 5]
    if len(found) != text.count("x") + 1 or len(found) > 2 or not all(1 <= side <= LARGEST_SIDE for side in found):
        raise ValueError(f"{text[:40]!a} is no size, such as 224 or 224x160, of at most {LARGEST_SIDE}")
    return found[0], found[-1]


def numbers(text: str) -> str:
    """Return numbers with commas between them."""
    return _checked(floats, text)


def floats(text: str) -> list[float]:
    """Return the numbers of a text.

    Raises:
        ValueError: one is no finite number, or there are very many.
    """
    try:
        values = [float(entry) for entry in text.split(",")]
    except ValueError:
        raise ValueError(f"{text[:40]!a} is not numbers with commas between them, such as 0.5,0.5,0.5") from None
    if len(values) > 64 or not all(map(math.isfinite, values)):
        raise ValueError(f"{text[:40]!a} is not a finite number for each channel")
    return values


def formats(text: str) -> str:
    """Return names of export formats with commas between them, or `all`."""
    for name in text.split(",") if text != "all" else ():
        if name not in exports():
            raise argparse.ArgumentTypeError(f"{_unknown('format', name, [*exports(), 'all'])}")
    return text


def folder_name(text: str) -> str:
    """Return a name that a folder can have on every system."""
    if not text.isprintable() or not text.strip() or any(letter in text for letter in '/\\:*?"<>|'):
        raise argparse.ArgumentTypeError(f"{text[:40]!a} cannot be part of a folder's name")
    return text


def resolved(text: str) -> Path:
    """Return an absolute path: a resumed run must find the same file, and `runs/latest` will soon be another folder."""
    return Path(text).resolve()


def _of_a_library(library: str, name: str) -> str:
    if find_spec(library) is None:
        raise argparse.ArgumentTypeError(f'{library} is not installed: pip install "potstill[{library}]"')
    if library == "timm":
        try:
            model_info(f"timm/{name}")
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return f"timm/{name}"
    if not name or "\0" in name:
        raise argparse.ArgumentTypeError("transformers/ needs the folder of an image classifier: transformers/FOLDER")
    return f"transformers/{Path(name).expanduser().absolute()}"


def _checked(parse: Callable[[str], object], text: str) -> str:
    """Return the text, since options are kept in checkpoints as plain data, if it can be read."""
    try:
        parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _unknown(kind: str, text: str, names: Sequence[str]) -> str:
    return f"no {kind} {text!r}{did_you_mean(text, names, 3)}"
