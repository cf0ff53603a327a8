"""What a network loses when one weight alone is pruned: all weights in a picture, or one of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from potstill.compression.sensitivity import Point, tolerated_levels

from .style import GREY, LINES, colour_bar, figure_of, label, panel
from .tables import read_table

MOST = 2000
"""So many parameters are drawn at most."""
TICKS = 12
"""So many numbers fit below a picture."""
COLUMNS = ("parameter", "sparsity", "top1", "top5", "loss")
Analysis = pd.DataFrame | Iterable[Point[Any]] | Iterable[Sequence[Any]] | str | os.PathLike[str]
"""A table, points, rows, or the path of `sensitivity.csv` or of its folder."""


def sensitivity(
    analysis: Analysis, dense: float | None = None, loss: float = 1.0, *, parameter: str | None = None, ax: Any = None
) -> Any:
    """Draw all weights: a line each, a column a sparsity, Top1 as colour; or the curves of one weight.

    Args:
        analysis: by `COLUMNS`, of which the last two may be missing; of `sensitivity_analysis` the points, with a score
            or (Top1, Top5, loss).
        dense: Top1 of the dense network; with it a dot shows how sparse each weight may be.
        loss: the points of Top1 that pruning may cost.
        parameter: draw this one's Top1 (and Top5 and loss) over its sparsity.
        ax: axes to draw into; of one weight the accuracy.

    Returns:
        The figure.

    Raises:
        ValueError: there are no rows, or none of this parameter, or the file holds no analysis.
        OSError: it cannot be read.
    """
    table = _table(analysis)
    if parameter is None:
        return _overview(table, dense, loss, ax)
    curve = table[table["parameter"] == parameter]
    if not len(curve):
        raise ValueError(f"the analysis has no parameter {parameter!r}")
    return _one(curve, None if dense is None else dense - loss, loss, ax)


def _table(analysis: Analysis) -> pd.DataFrame:
    if isinstance(analysis, (str, os.PathLike)):
        table = read_table(analysis, "sensitivity.csv", COLUMNS[:3], COLUMNS[:1])
        table[COLUMNS[0]] = table[COLUMNS[0]].astype(str)
    elif isinstance(analysis, pd.DataFrame):
        table = analysis
    else:
        rows = [_row(one) for one in analysis]
        table = pd.DataFrame(rows, columns=list(COLUMNS[: len(rows[0]) if rows else 3]))
    if not len(table):
        raise ValueError("the analysis has no rows to draw")
    return table


def _row(one: Any) -> tuple[Any, ...]:
    if not isinstance(one, Point):
        return tuple(one)
    scores = one.scores if isinstance(one.scores, tuple) else (one.scores,)
    return one.parameter, one.sparsity, *scores


def _overview(table: pd.DataFrame, dense: float | None, loss: float, ax: Any) -> Any:
    curves = {str(name): list(part["top1"]) for name, part in table.groupby("parameter", sort=False)}
    names = list(curves)[::-1]
    if len(names) > MOST:
        raise ValueError(f"{len(names):,} parameters are too many for a picture: {MOST:,} at most")
    levels = list(table[table["parameter"] == names[0]]["sparsity"])
    figure, axis = panel(ax, width=8, height=1.5 + 0.15 * len(names))
    axis.grid(visible=False)
    cells = [curves[name] + [float("nan")] * (len(levels) - len(curves[name])) for name in names]
    drawn = axis.pcolormesh(levels, range(len(names)), cells, shading="nearest", cmap="viridis", rasterized=True)
    axis.set_xlabel("sparsity")
    if dense is not None:
        found = tolerated_levels(table[list(COLUMNS[:3])].itertuples(index=False), dense - loss)
        dots = [found[name] for name in names]
        axis.scatter(dots, range(len(names)), s=9, color="white", edgecolor="black", linewidth=0.6, zorder=2)
        axis.set_xlabel(f"sparsity (dots: the highest up to which Top1 falls by at most {loss:g})")
    axis.set_yticks(range(len(names)), [label(name) for name in names], fontsize=6)
    axis.set_xticks(_ticks(levels))
    axis.set_title("Top1 (%) with one weight pruned", color=GREY)
    colour_bar(figure, drawn, axis, "Top1 (%)")
    return figure


def _ticks(levels: Sequence[float]) -> Sequence[float]:
    """Return the levels themselves, or every so many where they are too many to be written."""
    return levels[:: -(-len(levels) // TICKS)]


def _one(curve: pd.DataFrame, least: float | None, loss: float, ax: Any) -> Any:
    """Draw accuracy and, where it is known and there is room, the loss."""
    name = label(str(curve["parameter"].iloc[0]))
    if ax is None and "loss" in curve:
        figure, (accuracy, losses) = figure_of(2, height=3.2)
        losses.plot(curve["sparsity"], curve["loss"], color=LINES[0], marker=".")
        losses.set(xlabel="sparsity", title="loss", xticks=_ticks(list(curve["sparsity"])))
        figure.suptitle(name, color=GREY)
        accuracy.set_title("accuracy (%)")
    else:
        figure, accuracy = panel(ax, 5, 3.2)
        accuracy.set_title(f"{name}: accuracy (%)")
    for column, text, style, colour in (("top1", "Top1", "-", LINES[0]), ("top5", "Top5", "--", LINES[1])):
        if column in curve:
            accuracy.plot(curve["sparsity"], curve[column], style, color=colour, label=text, marker=".")
    if least is not None:
        accuracy.axhline(least, color=GREY, linestyle=":", linewidth=1, label=f"Top1 dense - {loss:g}")
    accuracy.set(xlabel="sparsity", xticks=_ticks(list(curve["sparsity"])))
    accuracy.legend(frameon=False, labelcolor=GREY)
    return figure
