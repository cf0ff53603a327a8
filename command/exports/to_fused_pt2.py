"""Export for inference: a program of torch.export without norms, in the faster layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from .folding import folded
from .programs import write_program
from .registry import Runner, register_export


@register_export("fused", "model.fused.pt2", help="as a program of torch.export with BatchNorm folded in")
def export_fused(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a network for inference as an exported program; the batch size stays free.

    Args:
        model: the network in eval mode, on the CPU.
        example: input images of shape (N, C, H, W), N >= 2.
        path: the file.
        metadata: texts about the network.

    Raises:
        UsageError: the network cannot be exported.
    """
    return write_program(folded(model, example), path, metadata)
