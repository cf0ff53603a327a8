"""What a network learns from another one's answers: the distillation loss, its weights, and whose answers they are.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DistillationError(ValueError):
    """Distillation cannot be done as asked."""


class DistillationLossWeights(NamedTuple):
    """What the parts of the loss count: the teacher's answers, the loop's own loss, and the teacher's loss (only 0)."""

    distill: float = 0.5
    student: float = 0.5
    teacher: float = 0.0


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, mean over images.

    The factor keeps the gradient's size the same at every temperature T (Hinton et al. 2015, section 2). It is computed
    in float32 at least.

    Args:
        student: logits of shape (images, classes), or (images, classes, ...) for a class at each place.
        teacher: logits of the same shape; no gradient flows into them.
        temperature: T; above 1 it shows more of what the teacher thinks of the wrong classes.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    ours = F.log_softmax(student.to(dtype) / temperature, 1)
    theirs = F.log_softmax(teacher.detach().to(dtype) / temperature, 1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1).mean()


def logits_of(output: Any, whose: str) -> Tensor:
    """Return the logits in what a network gives: a tensor, or the `logits` of an object or mapping.

    Raises:
        DistillationError: there are none.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, Tensor):
        return found
    what = f"the {whose} gives a {type(output).__name__}"
    raise DistillationError(f"{what}, not logits: distillation needs a tensor, or something with `logits`")


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of a network's weights and buffers, the same on every device."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def check_settings(temperature: float, weights: DistillationLossWeights) -> None:
    """Check a temperature and weights.

    Raises:
        DistillationError: they cannot be.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise DistillationError(f"the temperature must be above 0, not {temperature:g}")
    for name, weight in zip(weights._fields, weights, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise DistillationError(f"the {name} weight must be 0 or more, not {weight:g}")
    if weights.teacher:
        raise DistillationError(f"the teacher is frozen: its loss must have weight 0, not {weights.teacher:g}")
    if weights.distill == weights.student == 0:
        raise DistillationError("the distill and the student weight are both 0: nothing would be learned")
