"""`--sense`: how much accuracy each weight costs when it alone is pruned. Writes a table as it goes, and can go on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import Tensor, nn
from tqdm import tqdm

from potstill.compression import format_table
from potstill.compression.declare.names import UnknownName
from potstill.compression.latency.channels import channel_costs
from potstill.compression.parts.structures import CHANNELS, FILTERS, oriented
from potstill.compression.sensitivity import named_weights, prunable_weights, sensitivity_analysis, tolerated_levels
from potstill.models.datasets import Split
from potstill.plots import sensitivity
from potstill.plots.style import save
from potstill.thinning import trace
from potstill.thinning.files.regular import make_folder
from potstill.thinning.files.text import printable
from potstill.thinning.trace import OUTPUT

from ..cli.options import Options
from ..cli.sensitivity_options import Structure
from ..errors import UsageError
from ..run.averages import take_average
from ..run.evaluation import evaluate_batches
from ..run.first_lines import warn_if_untrained
from ..run.prepare import prepare
from ..run.session import Session
from .sensitivity_table import Analysis, SensitivityTable, digest, schedule_text

logger = logging.getLogger("potstill")

SHARE_OF_MEMORY = 0.5
Batch = tuple[Tensor, Tensor]


def sense(options: Options, kind: Structure) -> None:
    """Analyse the network of the options; on Ctrl-C say how to go on, with exit status 130.

    Raises:
        UsageError: the options ask for what cannot be, or a table in the folder is of another analysis.
    """
    output = replace(options.output, tensorboard=False)  # nothing here goes by epochs
    run = prepare(replace(options, output=output))
    warn_if_untrained(run)
    take_average(run.scheduler)
    try:
        _sense(run, kind)
    except KeyboardInterrupt:
        logger.info("stopped; go on with the same command and --sense-folder %s", run.folder.path)
        raise SystemExit(130) from None
    finally:
        run.folder.close()


def _sense(run: Session, kind: Structure) -> None:
    names, levels_ = _names(run, kind), run.options.sensitivity.levels()
    batches = keep(
        run.data.test if run.options.sensitivity.sense_on == "test" else run.data.validation,
        run.options.training.batch_size,
    )
    table = SensitivityTable(run.folder.path, _analysis(run, kind, names, levels_, batches))

    def evaluate(model: nn.Module) -> tuple[float, float, float]:
        return evaluate_batches(model, batches, run.device).scores()

    dense = evaluate(run.model)
    logger.info("dense ==> Top1: %.3f    Top5: %.3f    Loss: %.3f", *dense)
    logger.info("%d weights at %d sparsities; the table is %s", len(names), len(levels_), table.path)
    if table.rows:
        logger.info("goes on after %d of %d rows", len(table.rows), len(table.places))
    points = sensitivity_analysis(run.model, evaluate, names, levels_, kind, run.example, start=len(table.rows))
    bar = tqdm(total=len(table.places), initial=len(table.rows), desc="sensitivity", leave=False, disable=None)
    with bar:
        for point in points:
            table.append((point.parameter, point.sparsity, *point.scores))
            bar.set_postfix_str(f"{point.parameter} {point.sparsity:g}: top1 {point.scores[0]:.2f}", refresh=False)
            bar.update()
    _report(run, kind, table, dense[0])


def keep(split: Split, batch_size: int) -> list[Batch]:
    """Return all batches, loaded once.

    Raises:
        UsageError: they do not fit into half of the machine's memory.
    """
    images, _ = next(split.batches(1))
    size = 4 * images.numel() * len(split)
    if size > SHARE_OF_MEMORY * _memory():
        raise UsageError(f"{len(split):,} images take {size / 1e9:.0f} GB and all are kept: --limit-test N takes fewer")
    return list(split.batches(batch_size))


def _memory() -> float:
    """Return bytes of the machine's memory; infinite where the system does not say (Windows)."""
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else float("inf")


def _names(run: Session, kind: Structure) -> list[str]:
    """Return the parameters to prune.

    Raises:
        UsageError: there are none, or one that cannot be pruned so.
    """
    given = run.options.sensitivity.sense_weights
    try:
        names = named_weights(run.model, given, kind) if given else prunable_weights(run.model, kind)
    except UnknownName as error:
        raise UsageError(f"--sense-weights: {error}") from error
    except ValueError as error:
        raise UsageError(f"--sense {kind}: {error}") from error
    if not names:
        raise UsageError(f"--sense {kind}: {run.options.data.arch} has no weight of more than one {kind}")
    return names


def output_weights(model: nn.Module, example: Tensor) -> set[str]:
    """Return the weights whose filters are the network's outputs: a filter that goes takes its class along."""
    classes = trace(model, example).classes()
    return {name for group in classes if group.reason == OUTPUT for name, _, role in group.uses if role == "out"}


def _analysis(run: Session, kind: Structure, names: list[str], levels_: list[float], batches: list[Batch]) -> Analysis:
    images = {f"{what} {i}": part for i, batch in enumerate(batches) for what, part in zip("xy", batch, strict=True)}
    return Analysis(
        structure=kind,
        levels=levels_,
        parameters=names,
        arch=run.options.data.arch,
        weights=digest(run.model.state_dict()),
        images=digest(images),
        batch_size=run.options.training.batch_size,
        device=run.device.type,
    )


def _report(run: Session, kind: Structure, table: SensitivityTable, dense: float) -> None:
    """Print how sparse each weight may become, and write schedule and pictures."""
    loss = run.options.sensitivity.sense_loss
    found = tolerated_levels([row[:3] for row in table.rows], dense - loss)
    accuracies = {row[:2]: row[2] for row in table.rows}
    rows = [[name, found[name], accuracies.get((name, found[name]), dense)] for name in found]
    title = ["parameter", f"sparsity at -{loss:g} Top1", "Top1 (%)"]
    shown = pd.DataFrame(rows, columns=title)
    if run.options.sensitivity.sense_latency is not None:
        shown = by_time(shown, dense, saved_milliseconds(run, kind, found, run.options.sensitivity.sense_latency))
    logger.info("%s", format_table(shown, run.options.output.table))
    outputs = output_weights(run.model, run.example).intersection(found)
    text = schedule_text(kind, {name: level for name, level in found.items() if name not in outputs}, dense, loss)
    if text and outputs:
        logger.info("the schedule leaves out the output layer: %s", ", ".join(sorted(outputs)))
    written = [table.path]
    if text:
        written.append(run.folder.write_text("sensitivity.yaml", text))
    else:
        told = "no schedule is written: even at the lowest sparsity no weight but the output layer's costs"
        logger.warning("%s at most %g points of Top1 (--sense-loss, --sense-range)", told, loss)
    if run.options.output.plot:
        written += _plot(table, dense, loss)
    logger.info("wrote %s", ", ".join(str(path) for path in written))


def saved_milliseconds(run: Session, kind: Structure, levels: Mapping[str, float], batch: int) -> list[float]:
    """Return the time that each weight saves at its sparsity, from the layers that make and read its channels."""
    graph = trace(run.model, run.example)
    costs = channel_costs(run.model, graph, run.example, batch)
    group = FILTERS if kind == "filter" else CHANNELS
    channels = {name: graph.channels_of(name, oriented(group, name, run.model).kept[0]) for name in levels}
    return [level * float(costs[channels[name]][channels[name] > 0].sum()) for name, level in levels.items()]


def by_time(table: pd.DataFrame, dense: float, saved: list[float]) -> pd.DataFrame:
    """Return the table with what each weight costs for a millisecond that it saves; the cheapest first."""
    lost = (dense - table["Top1 (%)"]).clip(lower=0)
    time = pd.Series(saved)
    # What saves nothing comes last: it has no price.
    price = (lost / time).where(time > 0)
    table = table.assign(**{"ms saved": time, "points per ms": price})
    return table.sort_values(["points per ms", "ms saved"], ascending=[True, False], kind="stable", ignore_index=True)


def _plot(table: SensitivityTable, dense: float, loss: float) -> list[Path]:
    """Draw `sensitivity.png` and `.svg`, and for each parameter a picture in the folder `sensitivity`."""
    stem = table.path.with_name("sensitivity")
    written = save(sensitivity(table.rows, dense, loss), stem)
    pictures = make_folder(stem)
    for name in dict.fromkeys(row[0] for row in table.rows):
        save(sensitivity(table.rows, dense, loss, parameter=name), pictures / printable(name).replace("/", "_"))
    return [*written, pictures]
