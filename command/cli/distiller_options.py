"""Options of Distiller's that the headers of its schedules use, and what they mean here."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger("potstill")

QUANTIZE = "quantization is not done here: thin the network and quantize thinned.pt's with torchao"
EARLY_EXIT = "networks with early exits are not here: --kd-teacher, target_macs and --greedy make a network faster"
AMC = "reinforcement learning is not done here: ask for a size by target_macs (L0Regularizer) or by --greedy"
REFUSED = {
    "--earlyexit_lossweights": EARLY_EXIT,
    "--earlyexit_thresholds": EARLY_EXIT,
    "--activation-histograms --act-hist": "histograms served quantization: --act-stats test gives ranges and means",
    "--quantize-eval --qe": QUANTIZE,
    "--qe-mode --qem": QUANTIZE,
    "--qe-mode-acts --qema": QUANTIZE,
    "--qe-mode-wts --qemw": QUANTIZE,
    "--qe-bits-acts --qeba": QUANTIZE,
    "--qe-bits-wts --qebw": QUANTIZE,
    "--qe-bits-accum": QUANTIZE,
    "--qe-clip-acts --qeca": QUANTIZE,
    "--qe-clip-n-stds": QUANTIZE,
    "--qe-no-clip-layers --qencl": QUANTIZE,
    "--qe-no-quant-layers --qenql": QUANTIZE,
    "--qe-per-channel --qepc": QUANTIZE,
    "--qe-scale-approx-bits --qesab": QUANTIZE,
    "--qe-save-fp-weights": QUANTIZE,
    "--qe-convert-pytorch --qept": QUANTIZE,
    "--qe-pytorch-backend": QUANTIZE,
    "--qe-stats-file": QUANTIZE,
    "--qe-dynamic": QUANTIZE,
    "--qe-calibration": QUANTIZE,
    "--qe-config-file": QUANTIZE,
    "--qe-lapq --qe-coordinate-search": QUANTIZE,
    "--lapq-maxiter": QUANTIZE,
    "--lapq-maxfev": QUANTIZE,
    "--lapq-method": QUANTIZE,
    "--lapq-basinhopping --lapq-bh": QUANTIZE,
    "--lapq-basinhopping-niter --lapq-bh-niter": QUANTIZE,
    "--lapq-init-mode": QUANTIZE,
    "--lapq-init-method": QUANTIZE,
    "--lapq-eval-size": QUANTIZE,
    "--lapq-eval-memoize-dataloader": QUANTIZE,
    "--lapq-search-clipping": QUANTIZE,
    "--amc": AMC,
    "--amc-cfg": AMC,
    "--amc-protocol": AMC,
    "--amc-ft-epochs": AMC,
    "--amc-save-chkpts": AMC,
    "--amc-action-range": AMC,
    "--amc-heatup-episodes": AMC,
    "--amc-training-episodes": AMC,
    "--amc-reward-frequency": AMC,
    "--amc-target-density": AMC,
    "--amc-agent-algo": AMC,
    "--amc-ft-frequency": AMC,
    "--amc-prune-pattern": AMC,
    "--amc-prune-method": AMC,
    "--amc-rllib": AMC,
    "--amc-group-size": AMC,
    "--amc-reconstruct-pts": AMC,
    "--amc-ranking-noise": AMC,
}
"""The spellings of options that have no equal, and what to do instead."""


class _Refuse(argparse.Action):
    """Ends with the reason."""

    def __init__(self, *args: Any, reason: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.reason = reason

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        parser.error(f"{option}: {self.reason}")


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
    group.add_argument("--verbose", "-v", action="store_true", help="not needed: run.log holds everything")
    group.add_argument("--load-serialized", action="store_true", help="not needed: networks are never wrapped")
    group.add_argument("--param-hist", action="store_true", help="--tensorboard: its events hold the histograms")
    for flags, reason in REFUSED.items():
        group.add_argument(*flags.split(), nargs="*", action=_Refuse, reason=reason, help=argparse.SUPPRESS)


def translate(options: argparse.Namespace) -> None:
    """Set our options by Distiller's, and say what was done with those that have no equal."""
    if options.folder is not None:
        options.data = options.folder
    options.dataset_given = options.dataset is not None or options.data is not None
    if options.dataset is None and options.folder is not None:
        options.dataset = _dataset_of(options.arch)
    elif options.dataset is None:
        options.dataset = "imagefolder" if options.data is not None else "digits"
    if options.resume is not None:
        options.resume_from, options.reset_optimizer = options.resume, True
    if options.load_serialized:
        logger.info("--load-serialized changes nothing: networks are never wrapped in DataParallel")
    if options.param_hist:
        options.tensorboard = True
    if options.gpus and options.device == "auto":
        options.device = _device_of(options.gpus)


def _dataset_of(arch: str) -> str:
    """Return the data set that Distiller took a network's name to mean."""
    if "/" in arch:  # timm's and transformers': Distiller had none
        return "imagefolder"
    return "cifar10" if "cifar" in arch else "mnist" if "mnist" in arch else "imagefolder"


def _device_of(gpus: str) -> str:
    first, *others = gpus.split(",")
    if not torch.cuda.is_available():
        logger.warning("--gpus %s: there is no CUDA device here, the CPU is used", gpus)
        return "cpu"
    if others:
        logger.warning("--gpus %s: only the first is used", gpus)
    return f"cuda:{first}"
