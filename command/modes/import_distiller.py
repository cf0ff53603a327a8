"""`--import-distiller FILE`: makes one of our checkpoints of one of Distiller's."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from potstill.compression import CheckpointError, save_checkpoint
from potstill.compression.files.checked import Field, reading
from potstill.models import create_model, model_info

from ..run.evaluation import Meter
from ..run.resume import fill
from .distiller_pickle import read_pickled

logger = logging.getLogger("potstill")

CLASSES = {"cifar10": 10, "mnist": 10, "imagenet": 1000}
OWNER = "distiller"
NOT_KNOWN = {
    "minibatch": 0,
    "optimizer": {},
    "optimizer_name": "Distiller's",
    "split": None,
    "meter": asdict(Meter()),
    "rows": [],
    "best": [],
    "dense_top1": None,
    "trained": True,
    "options": {},
    "random": None,
    "early_stopping": None,
    "trajectory": None,
}
"""What a run of ours would know of itself."""


def import_distiller(options: argparse.Namespace) -> None:
    """Write `<out-dir>/<name>_imported.pt`, with weights, masks and epoch, and say how to go on.

    Raises:
        CheckpointError: the file is none of Distiller's, or does not fit the network that it names.
        ModelError: there is no such network here.
    """
    source: Path = options.import_distiller
    found = read_pickled(source)
    with reading(str(source)):
        contents, removed = converted(found, options.arch)
    target = options.out_dir / f"{source.name.partition('.')[0]}_imported.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(target, contents)
    masks = len(contents["scheduler"]["masks"]["masks"])
    logger.info("%s: %s after epoch %d, %d masks", source, contents["arch"], contents["epoch"] - 1, masks)
    if removed:
        logger.info("it is thinned: the sizes are those of its weights")
    logger.info(
        "written to %s; go on with: compress-classifier -a %s --resume-from %s --reset-optimizer --compress SCHEDULE",
        target, contents["arch"], target,
    )  # fmt: skip


def converted(found: dict[str, Any], arch: str) -> tuple[dict[str, Any], bool]:
    """Our checkpoint's contents, and whether the network is thinned.

    Args:
        found: Distiller's fields (`arch`, `epoch`, `state_dict`, `compression_sched`, ...).
        arch: the network where the file does not name it.

    Raises:
        CheckpointError: a field is missing or not what it should be, or the weights do not fit the network.
        ModelError: there is no such network here.
    """
    fields = Field(found)
    if "format" in found:
        raise CheckpointError("one of our own checkpoints: read it with --resume-from")
    if found.get("quantizer_metadata"):
        raise CheckpointError("a quantized network, which there is no equal of here")
    arch = fields["arch"].text() if "arch" in found else arch
    info = model_info(arch)
    classes = CLASSES.get(str(found.get("dataset")), info.num_classes)
    contents: dict[str, Any] = {
        "epoch": fields["epoch"].integer(most=2**31) + 1 if "epoch" in found else 0,
        "arch": arch,
        "num_classes": classes,
        "input_shape": list(info.input_shape),
        "state_dict": {plain_name(name): value.value for name, value in fields["state_dict"].mapping().items()},
        "scheduler": {"masks": {"masks": {}, "dense": {}}, "policies": {}, "classes": {}, "recipes": []},
    }
    model = create_model(arch, classes, info.input_shape[0])
    sizes = {name: value.shape for name, value in model.state_dict().items()}
    fill(model, contents)
    contents["state_dict"] = model.state_dict()
    if found.get("compression_sched"):
        contents["scheduler"]["masks"]["masks"] = _masks(fields["compression_sched"]["masks_dict"], model)
    thinned = any(value.shape != sizes[name] for name, value in contents["state_dict"].items())
    return {**NOT_KNOWN, **contents}, thinned


def plain_name(name: str) -> str:
    """A parameter's name without the `module` that DataParallel puts somewhere into it."""
    parts = name.split(".")
    if "module" in parts:
        parts.remove("module")
    return ".".join(parts)


def _masks(stored: Field, model: nn.Module) -> Mapping[str, Any]:
    """Permanent masks of all parameters that have one; what a mask scaled is in the weights already."""
    masks: dict[str, Any] = {}
    for key, value in stored.mapping().items():
        if value.value is None:
            continue
        name = plain_name(key)
        parameters = dict(model.named_parameters())
        if name not in parameters:
            raise CheckpointError(f"{value.path}: a mask of a parameter that {type(model).__name__} does not have")
        mask: Tensor = value.tensor(parameters[name].shape)
        masks[name] = {OWNER: {"mask": mask != 0, "mode": "hard", "stops_gradient": True}}
    return masks
