"""How messages reach the terminal and the log: each on one line, unless the program itself made it of several."""

from __future__ import annotations

import copy
import logging
import sys
from typing import Any

from potstill.thinning.files.text import Lines, printable, shown

logger = logging.getLogger("potstill")


class OneLine(logging.Formatter):
    """Escapes what is filled into a message, which may come from a file, and what else does not print."""

    def format(self, record: logging.LogRecord) -> str:
        safe = copy.copy(record)
        if isinstance(record.args, tuple):
            safe.args = tuple(map(_safe, record.args))
        safe.msg = record.msg if isinstance(record.msg, str) else shown(record.msg)
        return "\n".join(map(printable, super().format(safe).split("\n")))


class Plain(OneLine):
    """Messages as they are; warnings and errors say what they are."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def _safe(value: Any) -> Any:
    """Return numbers as they are, for `%.2f`, and anything else as a text."""
    return value if isinstance(value, (int, float)) else shown(value if isinstance(value, Lines) else str(value))


def set_up_console(debug: bool) -> None:
    """Let messages of the library reach the terminal: this is the command line, which may decide that."""
    console = _Console()
    console.setFormatter(Plain())
    root = logging.getLogger()
    root.handlers = [console]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


class _Console(logging.Handler):
    """Writes to what `sys.stdout` is at the moment, which tests and notebooks change."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")
        sys.stdout.flush()
