"""`--import-distiller FILE`: makes one of our checkpoints of one of Distiller's, or of a state dict."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from potstill.compression import CheckpointError, save_checkpoint
from potstill.compression.declare.names import normalise
from potstill.compression.files.checked import Field, reading
from potstill.compression.torch_pruning import plain_state_dict
from potstill.models import create_model, model_info, model_names
from potstill.thinning import ThinningError

from ..cli.option_types import floats
from ..cli.options import Options
from ..run.evaluation import Meter
from ..run.resume import fill
from .distiller_pickle import read_pickled

logger = logging.getLogger("potstill")

CLASSES = {"cifar10": 10, "mnist": 10, "imagenet": 1000}
STATISTICS = {
    "cifar10": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "mnist": ([0.1307], [0.3081]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
"""Mean and deviation that Distiller normalised its data sets by; GoogLeNet's images by 0.5 and 0.5."""
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


def import_distiller(source: Path, options: Options) -> None:
    """Write `<out-dir>/<name>_imported.pt`, with weights, masks and epoch, and say how to go on.

    Raises:
        CheckpointError: the file is none of Distiller's, or does not fit the network that it names.
        ModelError: there is no such network here.
    """
    found = read_pickled(source)
    with reading(str(source)):
        contents, removed = converted(found, options.data.arch)
    given = {"mean": options.data.mean, "std": options.data.std}
    for name, text in given.items():
        if text is not None:
            contents[name] = _of_each_channel(name, floats(text), contents["input_shape"][0])
    target = options.output.out_dir / f"{source.name.partition('.')[0]}_imported.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(target, contents)
    masks = len(contents["scheduler"]["masks"]["masks"])
    when = f" after epoch {contents['epoch'] - 1}" if contents["epoch"] else ""
    logger.info("%s: %s%s, %d masks", source, contents["arch"], when, masks)
    mean, std = (",".join(f"{value:g}" for value in contents[name]) for name in ("mean", "std"))
    why = ", as Distiller did (--mean, --std)" if None in given.values() else ""
    logger.info("its images are normalised by mean %s and deviation %s%s", mean, std, why)
    if removed:
        logger.info("it is thinned: the sizes are those of its weights")
    logger.info(
        "written to %s; go on with: compress-classifier -a %s --resume-from %s --reset-optimizer --compress SCHEDULE",
        target, contents["arch"], target,
    )  # fmt: skip


def converted(found: dict[str, Any], arch: str) -> tuple[dict[str, Any], bool]:
    """Return our checkpoint's contents, and whether the network is thinned.

    Args:
        found: Distiller's fields (`arch`, `epoch`, `state_dict`, `compression_sched`, ...; all but the third may be
            missing), or a state dict alone, perhaps of a network that `torch.nn.utils.prune` pruned.
        arch: the network where the file does not name it.

    Raises:
        CheckpointError: a field is missing or not what it should be, or the weights do not fit the network.
        ModelError: there is no such network here.
    """
    if "format" in found:
        raise CheckpointError("one of our own checkpoints: read it with --resume-from")
    if found.get("quantizer_metadata"):
        raise CheckpointError("a quantized network, which there is no equal of here")
    if "state_dict" not in found and found and all(isinstance(value, Tensor) for value in found.values()):
        found = {"state_dict": found}
    fields = Field(found)
    plain, masks = plain_state_dict({name: field.value for name, field in fields["state_dict"].mapping().items()})
    arch = _arch(fields, arch)
    info = model_info(arch)
    named = str(found.get("dataset"))
    mean, std = STATISTICS[named if named in STATISTICS else dataset_of(arch)]
    if arch == "googlenet":
        mean, std = STATISTICS["cifar10"]
    classes = CLASSES.get(named, info.num_classes)
    model = create_model(arch, classes, info.input_shape[0])
    own = model.state_dict()
    contents: dict[str, Any] = {
        "epoch": fields["epoch"].integer(most=2**31) + 1 if found.get("epoch") is not None else 0,
        "arch": arch,
        "input_shape": list(info.input_shape),
        "mean": mean,
        "std": std,
        "state_dict": _state_dict(Field(plain, "state_dict"), own),
        "scheduler": {"masks": {"masks": {}, "dense": {}}, "policies": {}, "classes": {}, "recipes": []},
    }
    sizes = {name: value.shape for name, value in own.items()}
    _fill(model, contents, named=found.get("arch") is not None)
    contents["state_dict"] = model.state_dict()
    contents["num_classes"] = outputs = _classes(model, info.input_shape)
    if outputs != classes:
        sizes = {name: value.shape for name, value in create_model(arch, outputs).state_dict().items()}
    stored = fields["compression_sched"]["masks_dict"] if found.get("compression_sched") else Field(masks, "state_dict")
    contents["scheduler"]["masks"]["masks"] = _masks(stored, model)
    thinned = any(value.shape != sizes[name] for name, value in contents["state_dict"].items())
    return {**NOT_KNOWN, **contents}, thinned


def _fill(model: nn.Module, contents: Mapping[str, Any], named: bool) -> None:
    """Give the network its weights; where they do not fit, say whether the file or the command line named it."""
    try:
        fill(model, contents)
    except (CheckpointError, ThinningError) as error:
        if named:
            raise
        raise CheckpointError(f"{error}; the file names no network: --arch does") from error


def _of_each_channel(name: str, values: list[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        raise CheckpointError(f"--{name} has {len(values)} numbers, but the images have {channels} channels")
    if name == "std" and not min(values) > 0:
        raise CheckpointError(f"--std is of numbers above 0, not {min(values):g}")
    return values if len(values) == channels else values * channels


def dataset_of(arch: str) -> str:
    """Return the data set that Distiller took a network's name to mean."""
    return "cifar10" if "cifar" in arch else "mnist" if "mnist" in arch else "imagenet"


def _arch(fields: Field, given: str) -> str:
    """Return the network that a file names, in Distiller's lower case; the one given where it names none."""
    if fields.value.get("arch") is None:
        return given
    arch = fields["arch"].text()
    return arch if arch in model_names() else arch.lower()


def _state_dict(stored: Field, own: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return the weights under our names and in our types, with what old files lack.

    BatchNorm did not count its batches before torch 0.4.1; torchvision's trained GoogLeNet has no auxiliary
    classifiers.
    The state dict carries the versions of our modules: some refuse to load from a mapping without one.
    """
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, field in stored.mapping().items():
        plain, tensor = normalise(name), field.tensor(finite=False)
        if plain in state:
            raise CheckpointError(f"{field.path}: stands twice, once without `module.`")
        state[plain] = tensor.to(own[plain].dtype) if plain in own else tensor
    for name, value in own.items():
        if name.endswith(".num_batches_tracked") and name not in state:
            state[name] = torch.zeros_like(value)
    trainers = [name for name in own.keys() - state.keys() if name.startswith("aux")]
    if trainers:
        logger.warning("the file lacks the auxiliary classifiers that GoogLeNet has in training: they begin anew")
        state.update((name, own[name]) for name in trainers)
    state._metadata = own._metadata  # type: ignore[attr-defined]
    return state


def _classes(model: nn.Module, shape: Sequence[int]) -> int:
    """Return how many outputs the network has, whatever the data set."""
    with torch.no_grad():
        outputs = model.eval()(torch.zeros(1, *shape))
    model.train()
    return int(outputs.shape[1])


def _masks(stored: Field, model: nn.Module) -> Mapping[str, Any]:
    """Return permanent masks of all parameters that have one; what a mask scaled is in the weights already."""
    masks: dict[str, Any] = {}
    for key, value in stored.mapping().items():
        if value.value is None:
            continue
        name = normalise(key)
        parameters = dict(model.named_parameters())
        if name not in parameters:
            raise CheckpointError(f"{value.path}: a mask of a parameter that {type(model).__name__} does not have")
        mask: Tensor = value.tensor(parameters[name].shape)
        masks[name] = {OWNER: {"mask": mask != 0, "mode": "hard", "stops_gradient": True}}
    return masks
