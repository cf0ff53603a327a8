"""The end of a run: test, thin, prove that nothing changed, and report what became smaller."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from potstill.compression import load_checkpoint, sparsity
from potstill.compression.files.checked import Field, reading
from potstill.compression.latency.fastest import LAYOUTS, Choice, fastest
from potstill.models.create import build
from potstill.plots import channels, metrics
from potstill.plots.style import save as save_picture
from potstill.thinning import Recipe
from potstill.thinning import load as load_thinned
from potstill.thinning import save as save_thinned
from potstill.thinning.files.regular import must_be_regular
from potstill.thinning.files.text import Lines, printable

from ..errors import UsageError
from ..plots.trajectory import plot_trajectory
from ..report import write_report
from .averages import take_average
from .deploy import deploy, export_table
from .epochs import evaluate_together, print_scores, test
from .evaluation import Meter
from .model_and_data import place
from .network import about
from .network_size import parameter_count
from .ranks import leads
from .run_summary import layers, story
from .session import Session
from .size_report import BATCHES, facts, latencies, summary_table

logger = logging.getLogger("potstill")


def finish(run: Session) -> dict[str, Any]:
    """Test the network as it was trained, thin it, and write and print the summary.

    Raises:
        ThinningError: the thinned network computes another function; the checkpoints stay as they were.
        UsageError: all is written but a format of `--export`.
    """
    chosen = choose_network(run)
    take_average(run.scheduler)
    run.scheduler.finish()
    logger.info("the network is that of %s", chosen)
    entries = run.scheduler.account()
    scores = test(run, run.data.test) if run.options.output.test else None
    print_scores(run, scores)
    masked = copy.deepcopy(run.model)
    asked = run.options.compression
    choice = Choice(asked.round_to, "channels_last") if asked.round_to else _fastest(run, masked)
    last = run.scheduler.thin(
        run.optimizer, allow_inexact=asked.allow_inexact, round_to=choice.multiple, add_bias=asked.add_bias
    )
    run.model.to(memory_format=LAYOUTS[choice.layout])
    recipe = run.scheduler.recipe or last  # what was removed during training too
    logger.info("%s", removed(recipe))
    thinned_scores = None if scores is None else test(run, run.data.test)
    validation = evaluate_together(run, run.data.validation).accuracy()
    if not leads():
        run.save(run.folder.path / "thinned.pt")
        return {}
    dense = place(build(run.info, len(run.data.classes)), run.device)
    models = {"dense": dense, "masked": masked, "thinned": run.model}
    accuracies = {"dense": run.dense_top1, "masked": _accuracy(scores), "thinned": _accuracy(thinned_scores)}
    summary: dict[str, Any] = {name: facts(m, run.example[:1], accuracies[name]) for name, m in models.items()}
    summary["dense"]["val_top1"] = run.dense_val_top1
    summary["masked"]["val_top1"] = summary["thinned"]["val_top1"] = validation
    for name, by_batch in latencies(models, run.example).items():
        summary[name]["latency_ms"] = {batch: time["median"] for batch, time in by_batch.items()}
        summary[name]["latency_spread_ms"] = {batch: [time["low"], time["high"]] for batch, time in by_batch.items()}
    summary["round_to"], summary["layout"] = choice.multiple, choice.layout
    summary["max_relative_difference"] = recipe.max_relative_difference
    summary["network"] = chosen
    summary["zeros"] = 100 * sparsity(run.model)
    summary["gone"] = 100 * (1 - parameter_count(run.model) / summary["dense"]["parameters"])
    summary["account"] = json.loads(entries.to_json(orient="records"))
    summary.update(story(run, recipe), layers=layers(run.model, dense))
    run.folder.write_json("summary.json", summary)
    run.folder.write_text("recipe.json", recipe.to_json())
    run.folder.write_text("recipe.txt", f"{recipe}\n")
    known = about(run.info, run.data.classes, run.data.mean, run.data.std)
    load_thinned(dense, save_thinned(run.model, recipe, run.folder.path / "thinned.safetensors", about=known))
    run.save(run.folder.path / "thinned.pt")
    if run.options.output.plot:
        _plot(run, summary["layers"])
    _tell(run, summary)
    _export(run, recipe, summary)
    return summary


def _plot(run: Session, widths: Sequence[Mapping[str, Any]]) -> None:
    """Draw the pictures of `--plot`."""
    if run.rows:  # --epochs 0 has none
        save_picture(metrics(list(run.rows), run.scheduler), run.folder.path / "metrics")
    kept = {row["layer"]: (row["before"], row["after"]) for row in widths}
    save_picture(channels(kept), run.folder.path / "channels")
    if run.trajectory:
        plot_trajectory(run.trajectory.tensors(), run.folder.path)


def _export(run: Session, recipe: Recipe, summary: dict[str, Any]) -> None:
    """Write the formats of `--export`, and the report, which names them.

    Raises:
        UsageError: a format could not be written; all else is.
    """
    if run.options.output.exports:
        summary["exports"] = deploy(run, recipe)
        run.folder.write_json("summary.json", summary)
        logger.info("%s", export_table(summary["exports"]))
    write_report(run.folder.path)
    if failed := [facts["failed"] for facts in summary.get("exports", {}).values() if "failed" in facts]:
        raise UsageError("the run is complete, but: " + "; ".join(failed))


def _fastest(run: Session, masked: nn.Module) -> Choice:
    """Return the multiple and layout that are fastest here: what rank 0 measures holds for all."""
    if not leads():
        return Choice(*run.ranks.first(None))
    inexact = run.options.compression.allow_inexact or any(policy.allows_inexact for policy in run.scheduler.policies)
    found = fastest(masked, run.example[:2], BATCHES, inexact)
    return Choice(*run.ranks.first((found.multiple, found.layout)))


def choose_network(run: Session) -> str:
    """Take up the weights that `--final` asks for; return which epoch's they are.

    Raises:
        CheckpointError: the checkpoint of the best epoch is damaged.
    """
    epoch = run.epoch - 1
    if run.early_stopping and run.early_stopping.best_epoch is not None:
        return f"epoch {run.early_stopping.best_epoch}, by early stopping"
    if run.options.output.final == "last":
        return f"epoch {epoch}, the last" if epoch >= 0 else "before the first epoch"
    if not run.folder.best_final.exists():
        return f"epoch {epoch}, the last: compression was never complete before, so there is no best (--final)"
    stored = load_checkpoint(must_be_regular(run.folder.best_final))
    with reading(str(run.folder.best_final)):
        Field(dict(stored))["state_dict"].only(run.model.state_dict())
        run.model.load_state_dict(stored["state_dict"])
        run.scheduler.load_state_dict(stored["scheduler"])
        epoch = Field(dict(stored))["epoch"].integer() - 1
    return f"epoch {epoch}, the most accurate on validation after compression was complete"


def removed(recipe: Recipe) -> str:
    """Return what thinning removed, and which dead channels it had to keep and why."""
    if recipe.removes_nothing:
        found = "can be removed" if recipe.refused else "is dead, so there is nothing to remove"
        told = f"thinning: no channel {found}"
    else:
        (parameters, fewer), (macs, less) = recipe.parameters, recipe.macs
        told = f"thinning: {parameters:,} -> {fewer:,} parameters, {macs:,} -> {less:,} MACs (recipe.txt lists all)"
    kept = [f"not removed: {kept}" for kept in recipe.refused]
    lines = [told, *kept, *(f"note: {note}" for note in recipe.notes)]
    return Lines("\n".join(map(printable, lines)))


def _tell(run: Session, summary: dict[str, Any]) -> None:
    logger.info("%s", summary_table(summary))
    logger.info(
        "thinned equals masked: largest difference / largest output = %.1e on random and validation images",
        summary["max_relative_difference"],
    )
    logger.info(
        "gone: %.2f %% of the dense network's parameters; zeros: %.2f %% of the others;"
        " checkpoints, metrics and summary are in %s",
        summary["gone"],
        summary["zeros"],
        run.folder.path,
    )


def _accuracy(scores: Meter | None) -> float | None:
    """Return the accuracy on the test images, where these were looked at (`--no-test`)."""
    return None if scores is None else scores.accuracy()
