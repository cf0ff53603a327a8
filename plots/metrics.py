"""What a training did, epoch by epoch: `metrics.csv` as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .acts import COLOURS, Act, Policies, acts_of, epochs_of, minibatches_of
from .style import GREY, LINES, figure_of, label, panel
from .tables import read_table

PANELS = {
    "loss": ("train_loss", "val_loss"),
    "top1 (%)": ("train_top1", "val_top1"),
    "learning rate": ("lr",),
    "zeros and gone (%)": ("zeros", "gone"),
}
"""Title -> columns of `metrics.csv`; a column in none of them has a panel of its own, but for those of gates."""
GATES = {"expected_sparsity": "expected", "gated_sparsity": "present"}
"""What gates measure of the network's size -> what the picture calls it."""
NAMED = 3
"""So many policies of a kind are named in the legend."""
Metrics = pd.DataFrame | Sequence[Mapping[str, Any]] | str | os.PathLike[str]
"""A table, rows, or the path of `metrics.csv` or of its folder."""


def metrics(rows: Metrics, policies: Policies = (), *, panels: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Draw loss, accuracy, learning rate, size and the parts of the loss by epoch.

    The size that gates expect, the present one and their goal share an axis.

    Args:
        rows: the metrics, by the columns of `metrics.csv`; one `epoch`, others may be missing or empty.
        policies: a scheduler or a schedule, whose windows are shaded and whose targets are drawn.
        panels: titles of the panels to draw (default: all there are).
        ax: axes to draw the one panel of `panels` into.

    Returns:
        The figure.

    Raises:
        ValueError: there are no rows, or no such panel, `ax` is given with other than one, or the file is no table.
        OSError: it cannot be read.
    """
    table = _table(rows)
    acts, minibatches = acts_of(policies), minibatches_of(policies)
    found = _panels(table, acts)
    titles = list(found) if panels is None else list(panels)
    wrong = [title for title in titles if title not in found]
    if wrong:
        raise ValueError(f"no panel {wrong[0]!r}: there are {', '.join(found)}")
    if ax is not None and len(titles) != 1:
        raise ValueError(f"ax is for one panel: panels=[...] with one of {', '.join(found)}")
    figure, axes = figure_of(len(titles)) if ax is None else (ax.figure, [panel(ax)[1]])
    for axis, title in zip(axes, titles, strict=True):
        _draw(axis, title, table, found[title])
        _shade(axis, acts, minibatches)
    if ax is None:
        _legend(figure, acts)
    return figure


def _table(rows: Metrics) -> pd.DataFrame:
    if isinstance(rows, (str, os.PathLike)):
        rows = read_table(rows, "metrics.csv", ["epoch"])
    table = pd.DataFrame(rows)
    if not len(table):
        raise ValueError("there are no epochs to draw")
    return table


def _panels(table: pd.DataFrame, acts: Sequence[Act]) -> dict[str, dict[str, str | float]]:
    """Return title -> label -> the column, or the height of a line across."""
    found: dict[str, dict[str, str | float]] = {}
    for title, names in PANELS.items():
        lines: dict[str, str | float] = {name: name for name in names if name in table}
        if lines:
            found[title] = lines
    goals = {act.name: act.goal for act in acts if act.goal is not None}
    known = {name for names in PANELS.values() for name in names} | {"epoch"}
    for column in table.columns:
        policy, _, measure = str(column).rpartition(".")
        if policy and measure in GATES:
            lines = found.setdefault(f"{policy}: share removed", {})
            lines[GATES[measure]] = column
            if policy in goals:
                lines["goal"] = goals[policy]
        elif column not in known:
            found[str(column)] = {str(column): column}
    return found


def _draw(axis: Any, title: str, table: pd.DataFrame, lines: Mapping[str, str | float]) -> None:
    for (name, what), colour, style in zip(
        sorted(lines.items(), key=_goal_last), LINES, ("-", "--", ":"), strict=False
    ):
        if isinstance(what, str):
            epochs, values = _known(table, what)
            marker = "." if len(values) < 30 else None
            axis.plot(epochs, values, style, color=colour, label=label(name), marker=marker)
        else:
            axis.axhline(what, linestyle=style, color=GREY, label=label(name))
    positive = all((table[what].fillna(0) > 0).all() for what in lines.values() if isinstance(what, str))
    axis.set_yscale("log" if title == "learning rate" and positive else "linear")
    axis.set(title=label(title), xlabel="epoch", xlim=(table["epoch"].iloc[0] - 0.5, table["epoch"].iloc[-1] + 0.5))
    axis.xaxis.get_major_locator().set_params(integer=True)
    if title.startswith("zeros") or "goal" in lines:  # from a little below 0, which would be lost in the frame
        top = max(axis.get_ylim()[1], 0.01)
        axis.set_ylim(-0.04 * top, top)
    if len(lines) > 1:
        axis.legend(frameon=False, labelcolor=GREY)


def _goal_last(line: tuple[str, str | float]) -> bool:
    return not isinstance(line[1], str)


def _known(table: pd.DataFrame, column: str) -> tuple[list[Any], list[Any]]:
    """Return epochs and values where there is one."""
    rows = table[table[column].notna()]
    return list(rows["epoch"]), list(rows[column])


def _shade(axis: Any, acts: Sequence[Act], minibatches: int | None) -> None:
    """Shade the windows of policies: an epoch's values stand at its number, so that it reaches half to both sides."""
    limits = axis.get_xlim()
    for act in _shaded(acts):
        span = epochs_of(act, minibatches)
        if span is not None:
            axis.axvspan(span[0] - 0.5, span[1] - 0.5, color=COLOURS[act.kind], alpha=0.1, linewidth=0, zorder=0)
    axis.set_xlim(limits)


def _shaded(acts: Sequence[Act]) -> list[Act]:
    """Return the policies that compress: a learning rate has a panel of its own."""
    return [act for act in acts if act.kind != "lr_scheduler"]


def _legend(figure: Any, acts: Sequence[Act]) -> None:
    """Say below the picture which colour is whose window."""
    from matplotlib.patches import Patch

    names: dict[str, list[str]] = {}
    for act in _shaded(acts):
        names.setdefault(act.kind, []).append(act.name)
    patches = []
    for kind, of_kind in names.items():
        different = list(dict.fromkeys(of_kind))
        told = ", ".join(different[:NAMED]) + (", …" if len(different) > NAMED else "")
        patches.append(Patch(color=COLOURS[kind], alpha=0.3, linewidth=0, label=label(f"window of {told}")))
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, labelcolor=GREY)
