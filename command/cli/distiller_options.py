"""Options of Distiller's that the headers of its schedules use, and what they mean here."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

logger = logging.getLogger("potstill")


def add_distiller_options(group: argparse._ArgumentGroup) -> None:
    """Add the options; `translate` turns them into ours."""
    group.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DATASET_DIR",
        help="the same as --data; the data set then follows from the network's name: cifar10, mnist or imagefolder",
    )
    group.add_argument("--resume", type=Path, metavar="FILE", help="--resume-from FILE --reset-optimizer")
    group.add_argument("--cpu", dest="device", action="store_const", const="cpu", help="--device cpu")
    group.add_argument("--gpus", metavar="IDS", help="the first of these is used: --device cuda:ID")
    group.add_argument(
        "--act-stats", nargs="+", metavar="PHASE", help="not needed: pruners gather what they rank by themselves"
    )
    group.add_argument("--verbose", "-v", action="store_true", help="not needed: run.log holds everything")


def translate(options: argparse.Namespace) -> None:
    """Set our options by Distiller's, and say what was done with those that have no equal."""
    if options.folder is not None:
        options.data = options.folder
    options.dataset_given = options.dataset is not None or options.folder is not None
    if options.dataset is None:
        options.dataset = _dataset_of(options.arch) if options.folder is not None else "digits"
    if options.resume is not None:
        options.resume_from, options.reset_optimizer = options.resume, True
    if options.act_stats:
        logger.info("--act-stats: pruners gather activation statistics by themselves")
    if options.gpus and options.device == "auto":
        options.device = _device_of(options.gpus)


def _dataset_of(arch: str) -> str:
    """Return the data set that Distiller took a network's name to mean."""
    return "cifar10" if "cifar" in arch else "mnist" if "mnist" in arch else "imagefolder"


def _device_of(gpus: str) -> str:
    first, *others = gpus.split(",")
    if not torch.cuda.is_available():
        logger.warning("--gpus %s: there is no CUDA device here, the CPU is used", gpus)
        return "cpu"
    if others:
        logger.warning("--gpus %s: only the first is used", gpus)
    return f"cuda:{first}"
