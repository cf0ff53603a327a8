"""The optimizer that the options ask for."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..cli.training_options import OPTIMIZERS, TrainingOptions


def make_optimizer(options: TrainingOptions, model: nn.Module) -> Optimizer:
    """Return the optimizer; without `--lr` its rate is 0.1 for SGD and 0.001 for the others, `momentum` is SGD's."""
    sgd = options.optimizer == "sgd"
    rate = options.lr if options.lr is not None else 0.1 if sgd else 1e-3
    extra: dict[str, Any] = {"momentum": options.momentum} if sgd else {}
    make: Any = OPTIMIZERS[options.optimizer]
    optimizer: Optimizer = make(model.parameters(), lr=rate, weight_decay=options.weight_decay, **extra)
    return optimizer
