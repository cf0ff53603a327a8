"""How every picture looks: legible in print, on white and on black (extra `plot`)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from potstill.compression.files.checkpoints import write_atomically
from potstill.thinning.files.text import printable

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours: told apart by the colour-blind, on white and on black, and in print."""
GREY = "#7f7f7f"


def figure_of(count: int, width: float = 9, height: float | None = None) -> Any:
    """Return a figure with panels in up to two columns, sizes in inches, and its axes.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """
    columns = min(2, count)
    lines = -(-count // columns)
    figure = _empty(width, height or 2.8 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for unused in axes[count:]:
        unused.remove()
    _dress(axes[:count])
    return figure, axes[:count]


def stacked(heights: Sequence[float], width: float = 9) -> Any:
    """Return a figure of panels that share their x axis, of these heights in inches without labels, and its axes.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """
    figure = _empty(width, sum(heights) + 0.35 * len(heights))
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _dress(axes)
    return figure, axes


def panel(ax: Any, width: float = 9, height: float = 4) -> Any:
    """Return the figure and axes to draw one panel into: those of `ax`, or new ones."""
    if ax is None:
        figure, (axis,) = figure_of(1, width, height)
        return figure, axis
    _dress([ax])
    return ax.figure, ax


def _empty(width: float, height: float) -> Any:
    return _picture()(figsize=(width, height), layout="constrained")


@cache
def _picture() -> Any:
    """Return the class of figures: one that notebooks show, without pyplot, which would show it twice and keep it.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('pictures need the extra "plot": pip install "potstill[plot]"') from error

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            return drawn(self, "png", 100)

    return Picture


def _dress(axes: Iterable[Any]) -> None:
    for axis in axes:
        axis.grid(visible=True, color=GREY, alpha=0.3, linewidth=0.5)
        axis.set_axisbelow(True)
        axis.set_facecolor("none")
        grey(axis)


def grey(axis: Any) -> None:
    """Draw texts, ticks and frame of a panel in a grey that shows on white and on black."""
    axis.tick_params(which="both", colors=GREY)
    for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
        text.set_color(GREY)
    for spine in axis.spines.values():
        spine.set_color(GREY)


def colour_bar(figure: Any, drawn: Any, axis: Any, label: str) -> None:
    """Draw the scale of a panel's colours, beside it."""
    bar = figure.colorbar(drawn, ax=axis, label=label)
    grey(bar.ax)
    bar.outline.set_edgecolor(GREY)


def drawn(figure: Any, form: str, dpi: int = 150) -> bytes:
    """Return a picture as `png` or `svg`, transparent."""
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=dpi, transparent=True)
    return picture.getvalue()


def save(figure: Any, stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.svg`, transparent."""
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    for path in paths:
        write_atomically(path, drawn(figure, path.suffix[1:]))
    return paths


def label(name: str) -> str:
    """Return a name as matplotlib draws it letter by letter: it takes what stands between two `$` as a formula."""
    return printable(name).replace("$", r"\$")
