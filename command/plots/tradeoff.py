"""The picture of several runs: accuracy over parameters, MACs and latency, the dense networks, and the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.plots.style import GREY, LINES, figure_of, label, save

from ..compare.stored import StoredRun
from ..compare.table import compressed, costs, dense_points, front, on_test, reached

LABELLED = 12
"""More points than these have no names: they would cover each other."""


def plot_tradeoff(runs: Sequence[StoredRun], stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.svg`: a panel for each cost.

    Args:
        runs: finished runs; those whose accuracy is not known are left out.
        stem: of the pictures.
    """
    networks = [run.thinned for run in runs]
    accuracy, shown, measures = reached(networks), compressed(runs), costs(networks)
    figure, axes = figure_of(len(measures))
    for axis, (name, cost) in zip(axes, measures.items(), strict=True):
        points = [(cost(run.thinned) or 0, accuracy(run.thinned)) for run in shown]
        _panel(axis, points, [run.name for run in shown])
        dense = [(at, top1) for one, top1 in dense_points(runs) if (at := cost(one)) is not None]
        axis.scatter([at for at, _ in dense], [top1 for _, top1 in dense], marker="D", color=LINES[1], zorder=3)
        axis.set(xlabel=name, ylabel=f"{'test' if on_test(networks) else 'validation'} top1 (%)")
        axis.margins(0.12)
    return save(figure, stem)


def _panel(axis: Any, points: Sequence[tuple[float, Any]], names: Sequence[str]) -> None:
    """Draw the runs, their names where there are few, and the front as a line."""
    if not points:
        return
    best = [points[place] for place in front(points)]
    axis.plot(*zip(*best, strict=True), color=LINES[0], linewidth=1.2, alpha=0.7)
    axis.scatter(*zip(*points, strict=True), color=LINES[0], s=24, zorder=2)
    if len(points) <= LABELLED:
        for point, name in zip(points, names, strict=True):
            place: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            axis.annotate(label(name.rpartition("=")[2]), point, color=GREY, fontsize=7, **place)
