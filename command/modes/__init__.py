"""What the command line does instead of training: list, dry-run, summarise, evaluate, analyse, thin."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from potstill.models import ModelInfo, model_info, model_names
from potstill.thinning.files.text import Lines

from ..cli.options import Options
from ..compare.mode import compare_runs
from ..exports import Export
from ..exports.written import write
from ..greedy.mode import greedy
from ..migration.distiller_checkpoint import import_distiller
from ..migration.sparseml import print_schedule
from ..plots.network import draw_network
from ..run.averages import take_average
from ..run.deploy import metadata
from ..run.epochs import print_scores, test
from ..run.finish import finish
from ..run.first_lines import warn_if_untrained
from ..run.model_and_data import build_model, class_count_of, described, example_inputs, start_checkpoint, statistics
from ..run.network import about, class_names
from ..run.prepare import prepare
from .dry_run import dry_run
from .schema import write_schema
from .sensitivity import sense
from .summaries import SUMMARY_PRINTERS

logger = logging.getLogger("potstill")


def trains(options: Options) -> bool:
    """Return whether training was asked for, and nothing else."""
    mode = options.mode
    asked = (mode.write_schema, mode.dry_run, mode.summary, mode.export, mode.import_sparseml, mode.import_distiller)
    runs = (mode.compare, options.sensitivity.sense, mode.greedy, mode.evaluate, mode.thinnify)
    others = (options.data.arch == "list", *runs)
    return not any((*asked, *others))


def run_mode(options: Options) -> bool:
    """Do what was asked for instead of training; return False if training was."""
    mode = options.mode
    if options.data.arch == "list":
        _list()
    elif mode.write_schema:
        write_schema(mode.write_schema)
    elif mode.compare:
        compare_runs(options, mode.compare)
    elif mode.dry_run:
        dry_run(options)
    elif mode.summary:
        _summarise(options, mode.summary)
    elif mode.export:
        _export(options, *mode.export)
    elif mode.import_sparseml or mode.import_distiller:
        _import(options)
    elif mode.greedy:
        greedy(options)
    elif options.sensitivity.sense:
        sense(options, options.sensitivity.sense)
    elif mode.evaluate:
        _evaluate(options)
    elif mode.thinnify:
        _thinnify(options)
    else:
        return False
    return True


def _list() -> None:
    for name in model_names():
        logger.info("%-32s %s", name, model_info(name).description)
    logger.info("%-32s %s", "timm/NAME", "timm's, where it is installed (timm.list_models() names them)")
    logger.info("%-32s %s", "transformers/FOLDER", "an image classifier of transformers: a folder with its config")


def _network(options: Options) -> tuple[nn.Module, Tensor]:
    """Return a network, fresh or from a checkpoint, and images for it: without data."""
    model, info = _built(options, start_checkpoint(options))
    return model, example_inputs(info.input_shape)


def _built(options: Options, checkpoint: Mapping[str, Any] | None) -> tuple[nn.Module, ModelInfo]:
    info = described(options, checkpoint)
    return build_model(options, info, class_count_of(options, checkpoint, info), checkpoint), info


def _export(options: Options, export: Export, path: Path) -> None:
    """Write a network in another format, with what is known of it."""
    checkpoint = start_checkpoint(options)
    model, info = _built(options, checkpoint)
    classes = None if checkpoint is None else class_names(checkpoint)
    given = {"mean": options.data.mean, "std": options.data.std}
    mean, std = (statistics(what, text, checkpoint, info) for what, text in given.items())
    write(export, model, example_inputs(info.input_shape), path, metadata(**about(info, classes, mean, std)))


def _summarise(options: Options, kinds: Sequence[str]) -> None:
    model, example = _network(options)
    for kind in sorted(kinds, key=lambda kind: kind.startswith("png")):  # without Graphviz they end in an error
        if kind.startswith("png"):
            logger.info("%s", draw_network(model, example, Path("model"), parameters=kind == "png_w_params"))
            continue
        text = SUMMARY_PRINTERS[kind](model, example, options.output.table)
        logger.info("%s", text if isinstance(text, Lines) else Lines(text, in_markdown=f"```\n{text}\n```"))


def _import(options: Options) -> None:
    if options.mode.import_sparseml:
        _import_sparseml(options, options.mode.import_sparseml)
    elif options.mode.import_distiller:
        import_distiller(options.mode.import_distiller, options)


def _import_sparseml(options: Options, source: Path) -> None:
    model, _ = _network(options)
    asked = options.distillation
    teacher: dict[str, Any] = {"arch": asked.kd_teacher} if asked.kd_teacher else {}
    if asked.kd_resume:
        teacher["checkpoint"] = str(asked.kd_resume)
    if asked.kd_pretrained:
        teacher["pretrained"] = True
    print_schedule(source, model, options.data.arch, teacher)


def _evaluate(options: Options) -> None:
    session = prepare(options)
    warn_if_untrained(session)
    take_average(session.scheduler)
    scores = test(session, session.data.test)
    print_scores(session, scores)
    session.folder.close()


def _thinnify(options: Options) -> None:
    session = prepare(options)
    finish(session)
    session.folder.close()
