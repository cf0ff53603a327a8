"""Ctrl-C, and SIGTERM and SIGHUP of batch systems, which do as Ctrl-C: one line and exit status 130, whenever it is.

Loads nothing large: it is in force while torch is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

INTERRUPTED = 130
LINE = "compress-classifier: stopped\n"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Windows has no SIGHUP."""


def end_at_once(number: int, frame: Any) -> None:
    """End the process where there is nothing to put in order yet: an exception would surface in somebody's import."""
    with suppress(OSError):
        os.write(2, LINE.encode())
    os._exit(INTERRUPTED)


def interrupt(number: int, frame: Any) -> None:
    """Let what runs clean up behind itself."""
    raise KeyboardInterrupt


def handle(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Let a function take all three signals, but those that are ignored (`nohup`); return what took them before.

    Only the main thread may say so; elsewhere nothing changes.
    """
    before = {}
    with suppress(ValueError):
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[int(number)] = signal.signal(number, handler)
    return before


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let a function take the signals for a while."""
    before = handle(handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def tell_stopped() -> None:
    """Say that the program was stopped."""
    with suppress(OSError, ValueError):
        sys.stderr.write(LINE)
