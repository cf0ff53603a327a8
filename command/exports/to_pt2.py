"""Export of a network as a program of torch.export: one file that torch runs without the network's code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from potstill.compression.distillation import logits_of

from .folding import exported
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
    return written_program(exported(model, example), path, metadata)


def written_program(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a program with texts about the network, and return what runs the file."""
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(dict(metadata), indent=1)})
    loaded = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        return logits_of(loaded(images), "program")

    return run
