"""What a run that goes on does otherwise than it did before: it is said, for its results are then another run's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from potstill.compression.files.checked import Field, describe
from potstill.models.datasets import DataBundle

logger = logging.getLogger("potstill")

WORDS = {
    "dataset": "data set",
    "batch_size": "batch size",
    "seed": "seed",
    "validation_split": "validation split",
    "input_size": "size of the images (--input-size)",
    "augmentation": "augmentation",
    "normalise": "normalisation",
    "limit_train": "number of training images (--limit-train)",
    "limit_validation": "number of validation images (--limit-validation)",
    "limit_test": "number of test images (--limit-test)",
    "effective_train_size": "share of training images",
    "effective_valid_size": "share of validation images",
    "effective_test_size": "share of test images",
    "amp": "precision (--amp)",
    "deterministic": "choice of kernels (--deterministic)",
    "warmup_epochs": "warm-up (--warmup-epochs)",
    "label_smoothing": "label smoothing",
    "ema": "average of the weights (--ema)",
    "on_nan": "way with bad numbers (--on-nan)",
    "data": "folder of the data set",
    "early_stop": "rule of early stopping",
    "kd_resume": "checkpoint of the teacher",
}
"""What options that decide what is computed are called; others by their own names."""
SAME_RESULTS = frozenset({
    *("arch", "optimizer", "compress", "plugin"),  # told elsewhere, or refused
    *("epochs", "workers", "name", "checkpoint_every", "num_best_scores", "table", "print_freq", "masks_sparsity"),
    *("confusion", "plot", "tensorboard", "trajectory", "greedy", "exports"),
})  # fmt: skip
"""Options with which a run has the same numbers, as far as it goes."""
OF_THE_OPTIMIZER = {"lr": "learning rate", "momentum": "momentum", "weight_decay": "weight decay"}
"""Options that the optimizer's state, which comes from the checkpoint, overrules."""


def surroundings(data: DataBundle) -> dict[str, Any]:
    """Return what the bits of a run depend on beside its options, for its checkpoints."""
    return {
        "threads": torch.get_num_threads(),
        "images": {name: len(getattr(data, name)) for name in ("train", "validation", "test")},
        "files": data.files,
    }


def tell_changes(now: Mapping[str, Any], data: DataBundle, checkpoint: Field) -> None:
    """Warn of everything that is another than in the run of a checkpoint, with both values.

    Args:
        now: the options by name, as checkpoints hold them.
        data: the images.
        checkpoint: what the run had.

    Raises:
        CheckpointError: it cannot be read.
    """
    before = {name: value.value for name, value in checkpoint["options"].mapping().items()}
    for name, value in now.items():
        if name in before and before[name] != value and name not in SAME_RESULTS | OF_THE_OPTIMIZER.keys():
            _warn(WORDS.get(name, f"option --{name.replace('_', '-')}"), before[name], value)
    if checkpoint["optimizer_name"].value == now["optimizer"]:  # another one starts afresh, which is told
        for name, word in OF_THE_OPTIMIZER.items():
            if name in before and before[name] != now[name]:
                logger.warning(
                    "the %s %s is not used: the optimizer goes on with its own, which began at %s (--reset-optimizer"
                    " begins anew)", word, _shown(now[name]), _shown(before[name]),
                )  # fmt: skip
    if "surroundings" in checkpoint.value:  # earlier versions kept none
        for word, was, is_ in _other_surroundings(checkpoint["surroundings"], surroundings(data), before, now):
            _warn(word, was, is_)


def _other_surroundings(
    was: Field, is_: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    if was["threads"].integer() != is_["threads"]:
        yield "number of threads, and with it how sums are rounded,", was["threads"].value, is_["threads"]
    counts = {name: was["images"][name].integer() for name in is_["images"]}
    for name, count in is_["images"].items():
        if before.get(f"limit_{name}") == now.get(f"limit_{name}") and counts[name] != count:  # a limit is told already
            yield f"number of {name} images", counts[name], count
    if counts == is_["images"] and was["files"].text() != is_["files"]:
        yield "list of image files (some were renamed or replaced)", was["files"].value[:12], is_["files"][:12]


def _warn(word: str, was: Any, now: Any) -> None:
    logger.warning("the %s is another than before: %s, it was %s", word, _shown(now), _shown(was))


def _shown(value: Any) -> str:
    return "not given" if value is None else value if isinstance(value, str) else describe(value)
