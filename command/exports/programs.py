"""Programs of torch.export: making one of a network, and writing it with texts about the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from potstill.compression.distillation import logits_of

from ..errors import UsageError
from .registry import Runner


def exported(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Return a network as a program with a free batch size.

    Raises:
        UsageError: the network cannot be exported.
    """
    try:
        return torch.export.export(model, (example[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # the exporter has many kinds of failures, all meaning the same here
        raise UsageError(f"the network cannot be exported: {first_line(error)}") from error


def write_program(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a program, with `metadata.json` among its files, and return what runs the file."""
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(dict(metadata), indent=1)})
    loaded = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        return logits_of(loaded(images), "program")

    return run


def first_line(error: Exception) -> str:
    """Return what an error says in its first line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
