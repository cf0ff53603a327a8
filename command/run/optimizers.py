"""The optimizers that the command line offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float | None, momentum: float, weight_decay: float
) -> Optimizer:
    """An optimizer by name; `lr` None is 0.1 for SGD and 0.001 for the others, `momentum` is SGD's."""
    rate = lr if lr is not None else 0.1 if name == "sgd" else 1e-3
    extra: dict[str, Any] = {"momentum": momentum} if name == "sgd" else {}
    return OPTIMIZERS[name](parameters, lr=rate, weight_decay=weight_decay, **extra)  # type: ignore[call-arg]
