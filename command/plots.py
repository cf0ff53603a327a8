"""Every picture that the command line draws, as PNG and SVG (extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import UsageError
from .folder import METRICS

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours: told apart by the colour-blind, on white and on black, and in print."""
GREY = "#7f7f7f"


def plot_metrics(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Loss, accuracy, learning rate, sparsity and the parts of the loss by epoch: `metrics.png` and `metrics.svg`."""
    parts = [name for name in dict.fromkeys(k for row in rows for k in row) if name not in METRICS]
    panels: list[tuple[str, list[str], str]] = [
        ("loss", ["train_loss", "val_loss"], "linear"),
        ("top1 (%)", ["train_top1", "val_top1"], "linear"),
        ("learning rate", ["lr"], "log"),
        ("sparsity", ["sparsity"], "linear"),
        *[(name, [name], "linear") for name in parts],
    ]
    figure, axes = _figure(len(panels))
    for axis, (title, names, scale) in zip(axes, panels, strict=False):
        for name, colour, style in zip(names, LINES, ("-", "--"), strict=False):
            points = [(row["epoch"], row[name]) for row in rows if row.get(name) not in (None, "")]
            axis.plot(
                *zip(*points, strict=True), style, color=colour, label=name, marker="." if len(points) < 30 else None
            )
        axis.set_yscale(scale if all(row.get(n, 0) > 0 for row in rows for n in names) else "linear")
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(names) > 1:
            axis.legend(frameon=False, labelcolor=GREY)
    return _save(figure, folder / "metrics")


def plot_channels(kept: Mapping[str, tuple[int, int]], folder: Path) -> list[Path]:
    """A bar per layer: channels kept of those it had. `channels.png` and `channels.svg`.

    Args:
        kept: layer -> (channels now, channels of the dense network).
        folder: where the pictures go.
    """
    figure, (axis,) = _figure(1, height=max(2.5, 0.16 * len(kept)), width=8)
    names = list(kept)[::-1]
    axis.barh(names, [kept[n][1] for n in names], color="none", edgecolor=GREY, label="dense")
    axis.barh(names, [kept[n][0] for n in names], color=LINES[0], label="kept")
    axis.tick_params(axis="y", labelsize=6)
    axis.set(xlabel="channels", title="channels kept by layer")
    axis.margins(y=0.01)
    axis.legend(frameon=False, labelcolor=GREY)
    return _save(figure, folder / "channels")


def _figure(count: int, width: float = 9, height: float | None = None) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError('--plot needs the extra "plot": pip install "potstill[plot]"') from error
    columns = min(2, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(width, height or 2.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for unused in axes[count:]:
        unused.remove()
    for axis in axes[:count]:
        axis.grid(visible=True, color=GREY, alpha=0.3, linewidth=0.5)
        axis.tick_params(colors=GREY)
        axis.title.set_color(GREY)
        axis.xaxis.label.set_color(GREY)
        axis.set_facecolor("none")
        for spine in axis.spines.values():
            spine.set_color(GREY)
    return figure, axes[:count]


def _save(figure: Any, stem: Path) -> list[Path]:
    """Transparent, in greys that show on white and on black."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        figure.savefig(path, dpi=150, transparent=True)
    return paths
