"""The picture of a dry run: who acts when, and what becomes of learning rate and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..modes.policy_table import Acting, target
from ..modes.timeline import Epoch
from .style import GREY, LINES, label, save, stacked

COLOURS = dict(zip(("pruner", "regularizer", "lr_scheduler", "extension"), LINES, strict=False))


def plot_timeline(found: Sequence[Acting], rows: Sequence[Epoch], dense: tuple[int, int], folder: Path) -> list[Path]:
    """Draw policies as bars over epochs, learning rate, sparsity, parameters and MACs into `timeline.png` and `.svg`.

    Args:
        found: the policies; those that count minibatches are left out.
        rows: the epochs.
        dense: parameters and multiply-adds of the network before the first epoch.
        folder: where the pictures go.
    """
    shown = [one for one in found if one.plan.window.unit == "epoch"]
    figure, (bars, rate, zeros, size) = stacked([0.5 + 0.28 * len(shown), 1.4, 1.4, 1.4])
    _policies(bars, shown)
    edges = range(len(rows) + 1)
    rates = [row.rate for row in rows]
    rate.stairs(rates, edges, baseline=None, color=LINES[2], linewidth=1.5)
    rate.set_yscale("log" if min(rates, default=0) > 0 and max(rates) > 10 * min(rates) else "linear")
    rate.set_ylabel("learning rate")
    shares = {"zeros": [row.zeros for row in rows], "gone": [row.gone for row in rows]}
    for (what, values), colour, style in zip(shares.items(), LINES, ("-", "--"), strict=False):
        zeros.stairs(values, edges, baseline=None, color=colour, linestyle=style, label=what, linewidth=1.5)
    zeros.set(ylabel="zeros, gone (%)", ylim=(-4, 104))  # 0 and 100 are not lost in the frame
    zeros.legend(frameon=False, labelcolor=GREY, loc="upper left")
    left = {
        "parameters": ([100 * row.parameters / dense[0] for row in rows], LINES[0], "-"),
        "MACs": ([100 * row.macs / dense[1] for row in rows], LINES[1], "--"),
    }
    for what, (values, colour, style) in left.items():
        size.stairs(values, edges, baseline=None, color=colour, linestyle=style, label=what, linewidth=1.5)
    size.set(xlabel="epoch", ylabel="after thinning (%)", xlim=(0, len(rows)), ylim=(-4, 104))
    size.xaxis.get_major_locator().set_params(integer=True)
    size.legend(frameon=False, labelcolor=GREY, loc="lower left")
    return save(figure, folder / "timeline")


def _policies(axis: Any, shown: Sequence[Acting]) -> None:
    """Draw a pale bar for each window, in it a full one for each time."""
    for place, one in enumerate(shown):
        window, colour = one.plan.window, COLOURS[one.plan.kind]
        axis.barh(place, window.end - window.start, 0.7, window.start, color=colour, alpha=0.3)
        axis.barh([place] * len(window.times), 1, 0.7, list(window.times), color=colour)
    axis.set_yticks(range(len(shown)), [_label(one) for one in shown], fontsize=8)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.set_title("who acts when", color=GREY)


def _label(one: Acting) -> str:
    """Return instance, how sparse, on how many parameters."""
    count = f"{len(one.names)} parameter{'s' if len(one.names) > 1 else ''}" if one.names else ""
    told = [part for part in (target(one), count) if part]
    return label(f"{one.plan.instance} ({', '.join(told)})" if told else one.plan.instance)
