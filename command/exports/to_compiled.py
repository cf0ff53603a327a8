"""Export as machine code: what torch.compile makes of the network for this kind of processor, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from potstill.compression.distillation import logits_of

from ..errors import UsageError
from .folding import folded
from .registry import Runner, register_export


@register_export("compiled", "model.compiled.pt2", help="compiled for this processor, BatchNorm folded in")
def export_compiled(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a network as a library that torch compiled ahead of time (AOTInductor); the batch size stays free.

    Args:
        model: the network in eval mode, on the CPU.
        example: input images of shape (N, C, H, W), N >= 2.
        path: the file.
        metadata: texts about the network.

    Raises:
        UsageError: the network cannot be exported, or not compiled here.
    """
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # slow to import

    try:
        aoti_compile_and_package(folded(model, example), package_path=str(path))
    except UsageError:
        raise
    except Exception as error:  # the compiler has many kinds of failures, all meaning the same here
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"the network cannot be compiled (a C++ compiler is needed): {told}") from error
    loaded = aoti_load_package(str(path))

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return logits_of(loaded(images), "library")

    return run
