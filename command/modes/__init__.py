"""What the command line does instead of training: list, dry-run, summarise, evaluate, analyse, thin."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from torch import Tensor, nn

from potstill.compression import format_table, sparsity_table
from potstill.models import model_info, model_names
from potstill.thinning.files.text import Lines

from ..run.epochs import test
from ..run.finish import finish
from ..run.first_lines import warn_if_untrained
from ..run.prepare import build_model, class_count_of, example_inputs, prepare, start_checkpoint
from .dry_run import dry_run
from .export_onnx import export_onnx
from .import_distiller import import_distiller
from .schema import write_schema
from .sensitivity import sense
from .summaries import SUMMARY_PRINTERS

logger = logging.getLogger("potstill")


def run_mode(options: argparse.Namespace) -> bool:
    """Do what was asked for instead of training; False if training was."""
    modes: list[tuple[bool, Callable[[argparse.Namespace], None]]] = [
        (options.arch == "list", _list),
        (options.write_schema is not None, write_schema),
        (options.dry_run, dry_run),
        (bool(options.summary), _summarise),
        (options.export_onnx is not None, _export),
        (options.import_distiller is not None, import_distiller),
        (bool(options.sense), sense),
        (options.evaluate, _evaluate),
        (options.thinnify, _thinnify),
    ]
    for asked, mode in modes:
        if asked:
            mode(options)
            return True
    return False


def _list(options: argparse.Namespace) -> None:
    for name in model_names():
        logger.info("%-32s %s", name, model_info(name).description)


def _network(options: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """A network, fresh or from a checkpoint, and images for it: without data."""
    checkpoint = start_checkpoint(options)
    info = model_info(options.arch)
    shape = tuple(checkpoint["input_shape"]) if checkpoint else info.input_shape
    return build_model(options, class_count_of(options, checkpoint), shape[0], checkpoint), example_inputs(shape)


def _export(options: argparse.Namespace) -> None:
    export_onnx(*_network(options), options.export_onnx)


def _summarise(options: argparse.Namespace) -> None:
    model, example = _network(options)
    for kind in options.summary:
        logger.info("%s", Lines(SUMMARY_PRINTERS[kind](model, example, options.table)))


def _evaluate(options: argparse.Namespace) -> None:
    session = prepare(options)
    warn_if_untrained(session)
    scores = test(session, session.data.test)
    logger.info("%s", format_table(sparsity_table(session.model), options.table))
    logger.info("test ==> Top1: %.3f    Top5: %.3f    Loss: %.3f", *scores.scores())
    session.folder.close()


def _thinnify(options: argparse.Namespace) -> None:
    session = prepare(options)
    finish(session)
    session.folder.close()
