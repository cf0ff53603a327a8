"""Loss and accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.compression.files.checked import Field
from potstill.models.datasets import Split


@dataclass
class Meter:
    """Running sums over minibatches: of the loss, of its parts, of correct answers; and how many were skipped."""

    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    images: int = 0
    skipped: int = 0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, loss: float, logits: Tensor, labels: Tensor, parts: dict[str, float] | None = None) -> None:
        """Count a minibatch; `logits` has shape (images, classes)."""
        k = min(5, logits.shape[1])
        hits = logits.detach().topk(k, 1).indices == labels[:, None]
        self.loss += loss * len(labels)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())
        self.images += len(labels)
        for name, value in (parts or {}).items():
            self.parts[name] = self.parts.get(name, 0.0) + value * len(labels)

    def mean_loss(self) -> float:
        """Return the mean loss per image."""
        return self.loss / max(self.images, 1)

    def accuracy(self, k: int = 1) -> float:
        """Return the percentage of images whose label is the answer (k = 1), or among the five likeliest (k = 5)."""
        return 100 * (self.top1 if k == 1 else self.top5) / max(self.images, 1)

    def scores(self) -> tuple[float, float, float]:
        """Return top1, top5 and mean loss."""
        return self.accuracy(), self.accuracy(5), self.mean_loss()

    def state(self) -> dict[str, Any]:
        """Return the sums, for a checkpoint."""
        return asdict(self)

    def restore(self, state: Field) -> None:
        """Take back what `state` gave.

        Raises:
            CheckpointError: it is damaged.
        """
        state.only([f.name for f in fields(self)])
        self.loss = state["loss"].number()
        for name in ("top1", "top5", "images", "skipped"):
            setattr(self, name, state[name].integer())
        self.parts = {name: mean.number() for name, mean in state["parts"].mapping().items()}

    def mean_parts(self) -> dict[str, float]:
        """Return the mean of each part of the loss."""
        return {name: value / max(self.images, 1) for name, value in self.parts.items()}


AUXILIARY_WEIGHTS = {"aux": 0.4, "aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3}
"""Weights of the extra outputs that Inception v3 and GoogLeNet have in training (Szegedy et al. 2015, section 5)."""


def classification_loss(outputs: Any, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross entropy, with the weighted losses of auxiliary outputs where there are some.

    For networks with a single output, which is the probability of the second of two classes, half the squared error
    of it, mean over images (Rumelhart, Hinton and Williams 1986, eq. 3, divided by the number of images).

    Args:
        outputs: of the network: a tensor (images, classes), or what has it as `logits`.
        labels: int64 (images,).
        smoothing: the part of each label that is shared among all classes (Szegedy et al. 2016, section 7).

    Returns:
        The loss and the logits of the main output: of all classes, also where there is a single output.
    """
    if isinstance(outputs, Tensor) and outputs.shape[1] == 1:
        targets = labels.to(outputs) * (1 - smoothing) + smoothing / 2
        return F.mse_loss(outputs[:, 0], targets) / 2, torch.cat([1 - outputs, outputs], 1)
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing), outputs
    loss = F.cross_entropy(outputs.logits, labels, label_smoothing=smoothing)
    for name, weight in AUXILIARY_WEIGHTS.items():
        extra = getattr(outputs, name, None)
        if extra is not None:
            loss = loss + weight * F.cross_entropy(extra, labels, label_smoothing=smoothing)
    return loss, outputs.logits


def evaluate(model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Meter:
    """Return loss and accuracy of a network in eval mode over a split; the mode of before is restored."""
    return evaluate_batches(model, split.batches(batch_size), device)


@torch.no_grad()
def evaluate_batches(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Meter:
    """Return loss and accuracy of a network in eval mode over batches; the mode of before is restored."""
    was_training = model.training
    model.eval()
    meter = Meter()
    try:
        for images, labels in batches:
            targets = labels.to(device)
            loss, logits = classification_loss(model(images.to(device)), targets)
            meter.add(loss.item(), logits, targets)
    finally:
        model.train(was_training)
    return meter
