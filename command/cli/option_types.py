"""What the command line's options take: each function reads a text, or says what is wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from potstill.models import model_names
from potstill.models.datasets import dataset_names
from potstill.models.nearest import nearest

from ..monitors.stopping_rules import parse_rule
from ..monitors.trajectory import TrajectoryOption
from ..run.checkpoint_interval import interval

MOST = 2**31 - 1
MOST_SEED = 2**63 - 1
MOST_WORKERS = 256


def architecture(text: str) -> str:
    """The name of a network, or `list`."""
    if text == "list" or text in model_names() or text.lower() in model_names():
        return text if text in model_names() else text.lower()
    raise argparse.ArgumentTypeError(_unknown("network", text, model_names()) + "; --arch list names all")


def dataset(text: str) -> str:
    """The name of a data set."""
    if text in dataset_names():
        return text
    raise argparse.ArgumentTypeError(_unknown("data set", text, dataset_names()))


def rule(text: str) -> str:
    """A rule of early stopping."""
    return _checked(parse_rule, text)


def trajectory(text: str) -> str:
    """Patterns of parameters and an interval."""
    return _checked(TrajectoryOption.parse, text)


def every(text: str) -> str:
    """A number of minibatches or minutes."""
    return _checked(interval, text)


def _checked(parse: Callable[[str], object], text: str) -> str:
    """The text, since options are kept in checkpoints as plain data, if it can be read."""
    try:
        parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _unknown(kind: str, text: str, names: Sequence[str]) -> str:
    near = nearest(text, names, 0.5)
    return f"no {kind} {text!r}" + (f" (did you mean {' or '.join(near)}?)" if near else "")


def number(text: str) -> float:
    """A number of 0 or more."""
    value = _float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    if number(text) == 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return float(text)


def split(text: str) -> float:
    """A part: 0 or more, below 1."""
    value = number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1 (1 excluded)")
    return value


def count0(text: str, most: int = MOST) -> int:
    """Return a whole number of 0 or more."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    if len(text.lstrip("0")) > len(str(most)) or int(text) > most:
        raise argparse.ArgumentTypeError(f"{text[:20]} is above {most}")
    return int(text)


def seed(text: str) -> int:
    """Return a whole number that every generator takes."""
    return count0(text, MOST_SEED)


def workers(text: str) -> int:
    """Return a number of processes."""
    return count0(text, MOST_WORKERS)


def folder_name(text: str) -> str:
    """Return a name that a folder can have on every system."""
    if not text.isprintable() or not text.strip() or any(letter in text for letter in '/\\:*?"<>|'):
        raise argparse.ArgumentTypeError(f"{text[:40]!a} cannot be part of a folder's name")
    return text


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if count0(text) == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
