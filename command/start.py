"""Where the installed command begins: before anything large is imported."""

from __future__ import annotations

from .cli.interrupts import end_at_once, handle


def main() -> int:
    """Run the command line; return its exit status."""
    handle(end_at_once)
    from compress_classifier import main as compress_classifier

    return compress_classifier()
