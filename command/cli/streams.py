"""Standard streams as they may be given: closed, or in an encoding that lacks most letters."""

from __future__ import annotations

import os
import sys


def prepare_streams() -> None:
    """Let all output be possible: into nothing where a stream is closed, escaped where its encoding lacks a letter.

    A closed descriptor is filled first: the next file that is opened would get its number, and be written into.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (until the end of the program)
        elif getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
