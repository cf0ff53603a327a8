"""How messages reach the terminal and the log: each on one line, unless the program itself made it of several."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable
from typing import Any

from potstill.thinning.files.text import markdown, printable, shown

from .ranks import leads

logger = logging.getLogger("potstill")


class OneLine(logging.Formatter):
    """Escapes what is filled into a message, which may come from a file, and what else does not print."""

    def __init__(self, form: str | None = None, show: Callable[[object], str] = printable) -> None:
        """Take the form of a line, and how a text is shown in it."""
        super().__init__(form)
        self.show = show

    def format(self, record: logging.LogRecord) -> str:
        safe = copy.copy(record)
        if isinstance(record.args, tuple):
            safe.args = tuple(map(self._safe, record.args))
        safe.msg = record.msg if isinstance(record.msg, str) else shown(record.msg)
        return "\n".join(map(printable, super().format(safe).split("\n")))

    def _safe(self, value: Any) -> Any:
        """Return numbers as they are, for `%.2f`, and anything else as a text."""
        return value if isinstance(value, (int, float)) else shown(value, self.show)


class Plain(OneLine):
    """Messages as they are; warnings and errors say what they are."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def set_up_console(debug: bool, form: str = "text") -> None:
    """Let messages of the library reach the terminal: this is the command line, which may decide that.

    Args:
        debug: whether messages for those who look for faults are shown too.
        form: that of tables; where it is `markdown`, messages are text of such a document too.
    """
    console = _Console()
    console.setFormatter(Plain(show=markdown if form == "markdown" else printable))
    root = logging.getLogger()
    root.handlers = [console] if leads() else [logging.NullHandler()]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


class _Console(logging.Handler):
    """Writes to what `sys.stdout` is at the moment, which tests and notebooks change."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")
        sys.stdout.flush()
