"""The pictures of a sensitivity analysis: all weights in one, and each in one of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.compression.sensitivity import tolerated_levels
from potstill.thinning.files.regular import make_folder
from potstill.thinning.files.text import printable

from ..modes.sensitivity_table import Row
from .style import GREY, LINES, colour_bar, figure_of, label, save

TICKS = 12
"""So many numbers fit below a picture."""


def plot_sensitivity(rows: Sequence[Row], dense: float, loss: float, folder: Path) -> list[Path]:
    """Draw `sensitivity.png` and `.svg`, and for each parameter a picture in the folder `sensitivity`.

    Args:
        rows: the rows of the table.
        dense: Top1 of the dense network.
        loss: the points of Top1 that pruning may cost.
        folder: where the pictures go.
    """
    curves: dict[str, list[Row]] = {}
    for row in rows:
        curves.setdefault(row[0], []).append(row)
    found = tolerated_levels([row[:3] for row in rows], dense - loss)
    written = _overview(curves, found, loss, folder / "sensitivity")
    pictures = make_folder(folder / "sensitivity")
    for name, curve in curves.items():
        _one(name, curve, dense, loss, pictures / printable(name).replace("/", "_"))
    return [*written, pictures]


def _overview(curves: Mapping[str, list[Row]], found: Mapping[str, float], loss: float, stem: Path) -> list[Path]:
    """Draw a line for each parameter, a column for each sparsity, Top1 as colour."""
    names = list(curves)[::-1]
    levels = [row[1] for row in curves[names[0]]]
    figure, (axis,) = figure_of(1, width=8, height=1.5 + 0.15 * len(names))
    axis.grid(visible=False)
    cells = [[row[2] for row in curves[name]] for name in names]
    drawn = axis.pcolormesh(levels, range(len(names)), cells, shading="nearest", cmap="viridis", rasterized=True)
    dots = [found[name] for name in names]
    axis.scatter(dots, range(len(names)), s=9, color="white", edgecolor="black", linewidth=0.6, zorder=2)
    axis.set_yticks(range(len(names)), [label(name) for name in names], fontsize=6)
    axis.set_xticks(_ticks(levels))
    axis.set(xlabel=f"sparsity (dots: the highest up to which Top1 falls by at most {loss:g})")
    axis.set_title("Top1 (%) with one weight pruned", color=GREY)
    colour_bar(figure, drawn, axis, "Top1 (%)")
    return save(figure, stem)


def _ticks(levels: Sequence[float]) -> Sequence[float]:
    """Return the levels themselves, or every so many where they are too many to be written."""
    return levels[:: -(-len(levels) // TICKS)]


def _one(name: str, curve: Sequence[Row], dense: float, loss: float, stem: Path) -> list[Path]:
    figure, (accuracy, losses) = figure_of(2, height=3.2)
    levels = [row[1] for row in curve]
    styles: Any = {"marker": "."}
    accuracy.plot(levels, [row[2] for row in curve], color=LINES[0], label="Top1", **styles)
    accuracy.plot(levels, [row[3] for row in curve], "--", color=LINES[1], label="Top5", **styles)
    accuracy.axhline(dense - loss, color=GREY, linestyle=":", linewidth=1, label=f"Top1 dense - {loss:g}")
    for axis in (accuracy, losses):
        axis.set_xticks(_ticks(levels))
    accuracy.set(xlabel="sparsity", title="accuracy (%)")
    accuracy.legend(frameon=False, labelcolor=GREY)
    losses.plot(levels, [row[4] for row in curve], color=LINES[0], **styles)
    losses.set(xlabel="sparsity", title="loss")
    figure.suptitle(label(name), color=GREY)
    return save(figure, stem)
