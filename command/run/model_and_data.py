"""Device, checkpoint to start from, network and data, by the options: also of sweeps, comparisons and dry runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from potstill.compression import load_checkpoint
from potstill.compression.files.checked import Field, reading
from potstill.models import ModelInfo
from potstill.models.create import build
from potstill.models.datasets import DataBundle, class_count, load_dataset
from potstill.models.transformers_models import has_weights

from ..cli.option_types import floats
from ..cli.options import Options
from ..errors import UsageError
from .network import network_info
from .ranks import started
from .resume import checkpoint_path, fill, validation_images, validation_names

logger = logging.getLogger("potstill")


def find_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the first CUDA device, or else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def slow_in_bfloat16(device: torch.device) -> bool:
    """Return whether the processor has no instructions for bfloat16: torch then has no fast convolution."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def tell_if_slow(device: torch.device, amp: bool) -> None:
    """Warn of `--amp` where it makes training slower."""
    if amp and slow_in_bfloat16(device):
        logger.warning("--amp: this processor has no bfloat16, where it is much slower than float32: leave --amp out")


def start_checkpoint(options: Options) -> Mapping[str, Any] | None:
    """Return the checkpoint to start from, or None.

    Raises:
        CheckpointError: it is missing, damaged or not one of ours.
        UsageError: it is of another network.
    """
    path = options.start.path
    if path is None:
        return None
    checkpoint = options.checkpoint or load_checkpoint(checkpoint_path(path))
    if checkpoint["arch"] != options.data.arch:
        raise UsageError(f"{path} is a checkpoint of {checkpoint['arch']}, not of {options.data.arch} (--arch)")
    return checkpoint


def described(options: Options, checkpoint: Mapping[str, Any] | None) -> ModelInfo:
    """Return what the network is, and say where weights lie unused.

    Raises:
        CheckpointError: the checkpoint describes none.
        ModelError: there is no such network.
    """
    with reading(str(options.start.path)) if checkpoint is not None else nullcontext():
        info = network_info(options, checkpoint)
    unused = info.source == "transformers" and checkpoint is None and not options.data.pretrained
    if unused and has_weights(info.name):
        logger.info("the weights in %s are not used: --pretrained begins with them", info.name)
    return info


def load_data(options: Options, checkpoint: Mapping[str, Any] | None, info: ModelInfo) -> DataBundle:
    """Return the data set, its images in the network's size; a run that goes on validates on the same as before."""
    data = options.data
    goes_on = checkpoint if checkpoint and options.start.resume_from else None
    return load_dataset(
        data.dataset,
        data.data,
        validation_split=data.validation_split,
        seed=options.training.seed,
        workers=data.workers,
        input_shape=info.input_shape,
        augmentation=data.augmentation,
        normalise=data.normalise,
        mean=statistics("mean", data.mean, checkpoint, info),
        std=statistics("std", data.std, checkpoint, info),
        share_train=data.effective_train_size,
        share_validation=data.effective_valid_size,
        share_test=data.effective_test_size,
        indices=validation_images(goes_on) if goes_on else None,
        held_out=validation_names(goes_on) if goes_on else None,
        num_classes=checkpoint["num_classes"] if checkpoint else None,
        limit_train=data.limit_train,
        limit_validation=data.limit_validation,
        limit_test=data.limit_test,
    )


def statistics(
    what: str, given: str | None, checkpoint: Mapping[str, Any] | None, info: ModelInfo
) -> Sequence[float] | None:
    """Return the mean or deviation to normalise by: given, of the checkpoint, or the network's; None: the data's."""
    if given is not None:
        return floats(given)
    if checkpoint is None or checkpoint.get(what) is None:
        found: Sequence[float] | None = getattr(info, what)
        return found
    return [value.number() for value in Field(dict(checkpoint))[what].items()]


def build_model(options: Options, info: ModelInfo, classes: int, checkpoint: Mapping[str, Any] | None) -> nn.Module:
    """Return the network with its starting weights, thinned where the checkpoint's is.

    Raises:
        CheckpointError: the checkpoint does not fit.
    """
    model = build(info, classes, options.data.pretrained and checkpoint is None)
    if checkpoint is not None:
        with reading(str(options.start.path)):
            fill(model, checkpoint, info.input_shape)
    return model


def class_count_of(options: Options, checkpoint: Mapping[str, Any] | None, info: ModelInfo) -> int:
    """Return the classes of a network that is shown without data.

    They are those of the checkpoint or of the data set that was asked for, if its classes can be known unread; else as
    many as the network usually has.
    """
    if checkpoint is not None:
        return int(checkpoint["num_classes"])
    known = class_count(options.data.dataset, options.data.data) if options.data.dataset_given else None
    return known or info.num_classes


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move to the device; convolutional networks in channels-last layout, which halves their step time on CPUs."""
    return model.to(device).to(memory_format=torch.channels_last)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with BatchNorms whose statistics are of all processes' images.

    Raises:
        UsageError: there is one process, or torch cannot do it on this device.
    """
    if started() == 1 or device.type != "cuda":
        raise UsageError("--sync-bn is for several processes on GPUs (torchrun --nproc-per-node N)")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def example_inputs(shape: tuple[int, ...]) -> torch.Tensor:
    """Return two random images, the same in each run, drawn without touching the global generator."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), device="cpu")
