"""Export of a network as a program of torch.export: one file that torch runs without the network's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from .programs import exported, write_program
from .registry import Runner, register_export


@register_export("pt2", "model.pt2", help="as a program of torch.export")
def export_pt2(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a network as an exported program; the batch size stays free, `metadata.json` is among its files.

    Args:
        model: the network in eval mode, on the CPU.
        example: input images of shape (N, C, H, W), N >= 2.
        path: the file.
        metadata: texts about the network.

    Raises:
        UsageError: the network cannot be exported.
    """
    return write_program(exported(model, example), path, metadata)
