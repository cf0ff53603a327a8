"""Whether a model carries out a training step: thinned models are fine-tuned."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from potstill.thinning.running.inputs import run, tensors_of
from potstill.thinning.tracing.training_mode import at_least_two


def training_fails(model: nn.Module, inputs: Any) -> str:
    """Carry a step out on a copy; return why it fails, nothing if it does not."""
    twin = copy.deepcopy(model).train().requires_grad_(True)
    try:
        with torch.enable_grad():
            out = run(twin, at_least_two(inputs))
            losses = [tensor.float().mean() for tensor in tensors_of(out) if tensor.requires_grad]
            torch.stack(losses).sum().backward()
    except Exception as error:  # whatever a model's code raises
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return ""
