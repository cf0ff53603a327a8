"""What a run that goes on does otherwise than it did before: it is said, for its results are then another run's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from potstill.compression.files.checked import Field, describe

from .session import Session

logger = logging.getLogger("potstill")

WORDS = {
    "dataset": "data set",
    "batch_size": "batch size",
    "seed": "seed",
    "validation_split": "validation split",
    "augmentation": "augmentation",
    "normalise": "normalisation",
    "limit_train": "number of training images (--limit-train)",
    "limit_validation": "number of validation images (--limit-validation)",
    "limit_test": "number of test images (--limit-test)",
    "amp": "precision (--amp)",
    "deterministic": "choice of kernels (--deterministic)",
    "on_nan": "way with bad numbers (--on-nan)",
}
"""Options that decide what is computed."""
OF_THE_OPTIMIZER = {"lr": "learning rate", "momentum": "momentum", "weight_decay": "weight decay"}
"""Options that the optimizer's state, which comes from the checkpoint, overrules."""


def surroundings(data: Any) -> dict[str, Any]:
    """Return what a run's bits depend on beside its options, for the checkpoint."""
    return {
        "threads": torch.get_num_threads(),
        "images": {name: len(getattr(data, name)) for name in ("train", "validation", "test")},
    }


def tell_changes(run: Session, checkpoint: Mapping[str, Any]) -> None:
    """Warn of everything that is another than in the run of the checkpoint, with both values.

    Raises:
        CheckpointError: what it was cannot be read.
    """
    state = Field(dict(checkpoint))
    before, now = state["options"].mapping(), vars(run.options)
    for name, word in WORDS.items():
        if name in before and name in now and before[name].value != now[name]:
            _warn(word, before[name].value, now[name])
    if state["optimizer_name"].value == run.options.optimizer:  # another one starts afresh, and is told of
        for name, word in OF_THE_OPTIMIZER.items():
            if name in before and before[name].value != now[name]:
                told = f"the optimizer goes on with the {word} of its state; {_shown(now[name])} is not used"
                logger.warning("%s (it began with %s)", told, _shown(before[name].value))
    for word, was, is_ in _surroundings(run, state, before):
        _warn(word, was, is_)


def _surroundings(run: Session, state: Field, before: Mapping[str, Field]) -> Iterator[tuple[str, Any, Any]]:
    if "surroundings" not in state.value:  # an earlier version wrote it
        return
    was, now = state["surroundings"], surroundings(run.data)
    if was["threads"].integer() != now["threads"]:
        yield "number of threads, so that sums round otherwise,", was["threads"].value, now["threads"]
    for name, count in now["images"].items():
        limit = f"limit_{name}"
        same = limit not in before or before[limit].value == getattr(run.options, limit, None)
        if same and was["images"][name].integer() != count:
            yield f"number of {name} images", was["images"][name].value, count


def _warn(word: str, was: Any, now: Any) -> None:
    logger.warning("the %s is another than before: %s, it was %s", word, _shown(now), _shown(was))


def _shown(value: Any) -> str:
    return "all" if value is None else value if isinstance(value, str) else describe(value)
