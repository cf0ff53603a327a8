"""`--confusion`: which classes a network takes for which."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from potstill.compression import format_table
from potstill.models.datasets import Split

from ..errors import UsageError
from .evaluation import classification_loss

MOST = 1000
"""So many classes have a matrix: it has a million cells then, and its text takes some 200 MB to make."""


def must_be_few(classes: Sequence[str]) -> None:
    """Check that a matrix can be printed, whose size is the square of the number of classes.

    Raises:
        UsageError: there are too many classes.
    """
    if len(classes) > MOST:
        raise UsageError(f"--confusion prints {MOST:,} classes at most, and there are {len(classes):,}: leave it out")


@torch.no_grad()
def confusion_matrix(model: nn.Module, split: Split, classes: int, batch_size: int, device: torch.device) -> Tensor:
    """Return how often images of each class (rows) got each answer (columns): int64 (classes, classes).

    The network is in eval mode meanwhile.
    """
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    mode = model.training
    model.eval()
    try:
        for images, labels in split.batches(batch_size):
            _, logits = classification_loss(model(images.to(device)), labels.to(device))
            places = labels * classes + logits.argmax(1).cpu()
            counts += places.bincount(minlength=classes**2).view(classes, classes)
    finally:
        model.train(mode)
    return counts


def confusion_text(counts: Tensor, classes: Sequence[str], form: str) -> str:
    """Return the matrix as a table: a row for each class, a column for each answer, and the share that is right."""
    right = 100 * counts.diagonal().double() / counts.sum(1).clamp_min(1)
    table = pd.DataFrame(counts.tolist(), columns=list(classes))
    table.insert(0, "Class", list(classes))
    table["Right (%)"] = [round(share, 2) for share in right.tolist()]
    return format_table(table, form)
