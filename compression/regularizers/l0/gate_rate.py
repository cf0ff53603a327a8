"""The learning rate of gates that none was given for."""

from __future__ import annotations

from ...steps import Step, Window
from .constraint import steps_in

TRAVEL, SLOWEST, FASTEST = 16.0, 0.01, 0.2
"""`log_alpha` falls by 5.3 from a droprate of 0.05 until the gate is shut, by at most the learning rate a step."""


def rate_for(window: Window, step: Step) -> float:
    """Return a rate with which gates can cross from open to shut in the time that the window has."""
    return min(FASTEST, max(SLOWEST, TRAVEL / steps_in(window, step)))
