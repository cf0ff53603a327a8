"""Who acts when, and what becomes of learning rate and size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .acts import COLOURS, Act, Policies, acts_of, epochs_of, minibatches_of
from .style import GREY, LINES, label, panel, stacked

MOST = 500
"""So many times of a window are drawn: those of thousands of minibatches are thinner than a pixel."""


def timeline(policies: Policies, course: pd.DataFrame | None = None, *, ax: Any = None) -> Any:
    """Draw policies as bars over epochs; with a course, below them learning rate, zeros and size.

    Args:
        policies: a scheduler, a schedule, or what to show of each policy. Those that count minibatches are left out,
            unless a scheduler has been trained with, and so knows how many make an epoch.
        course: what `potstill.compression.dry_run` gives.
        ax: axes to draw the bars into, without the course.

    Returns:
        The figure.
    """
    acts, minibatches = acts_of(policies), minibatches_of(policies)
    shown = [act for act in acts if epochs_of(act, minibatches) is not None]
    height = 0.5 + 0.28 * len(shown)
    if course is None or ax is not None:
        figure, bars = panel(ax, height=height + 0.6)
        bars.set_xlabel("epoch")
    else:
        figure, (bars, *others) = stacked([height, 1.4, 1.4, 1.4])
        _course(course, *others)
    _bars(bars, shown, minibatches)
    bars.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _bars(axis: Any, shown: Sequence[Act], minibatches: int | None) -> None:
    """Draw a pale bar for each window, in it a full one for each time."""
    for place, act in enumerate(shown):
        start, end = epochs_of(act, minibatches) or (0, 0)
        each = (end - start) / (act.window.end - act.window.start)
        axis.barh(place, end - start, 0.7, start, color=COLOURS[act.kind], alpha=0.3)
        times = [each * time for time in act.window.times[:: 1 + len(act.window.times) // MOST]]
        axis.barh([place] * len(times), each, 0.7, times, color=COLOURS[act.kind])
    axis.set_yticks(range(len(shown)), [_label(act) for act in shown], fontsize=8)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.set_title("who acts when", color=GREY)


def _label(act: Act) -> str:
    return label(f"{act.name} ({act.detail})" if act.detail else act.name)


def _course(course: pd.DataFrame, rate: Any, zeros: Any, size: Any) -> None:
    """Draw learning rate, zeros and gone, and what thinning leaves, by epoch."""
    rates = list(course["learning rate"])
    _steps(rate, rates, LINES[2])
    rate.set_yscale("log" if min(rates, default=0) > 0 and max(rates) > 10 * min(rates) else "linear")
    rate.set_ylabel("learning rate")
    for axis, names, place in ((zeros, ("zeros", "gone"), "upper left"), (size, ("parameters", "MACs"), "lower left")):
        for name, colour, style in zip(names, LINES, ("-", "--"), strict=False):
            _steps(axis, list(course[f"{name} (%)"]), colour, linestyle=style, label=name)
        axis.legend(frameon=False, labelcolor=GREY, loc=place)
        axis.set_ylim(-4, 104)  # 0 and 100 are not lost in the frame
    zeros.set_ylabel("zeros, gone (%)")
    size.set(xlabel="epoch", ylabel="after thinning (%)", xlim=(0, len(course)))


def _steps(axis: Any, values: Sequence[float], colour: str, **how: Any) -> None:
    axis.stairs(values, range(len(values) + 1), baseline=None, color=colour, linewidth=1.5, **how)
