"""Export as machine code: what torch.compile makes of the network for this kind of processor, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from potstill.compression.distillation import logits_of

from ..errors import UsageError
from .folding import folded
from .programs import first_line
from .registry import Runner, register_export


@register_export("compiled", "model.compiled.pt2", help="compiled for this processor, BatchNorm folded in")
def export_compiled(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner:
    """Write a network as a library that torch compiled ahead of time (AOTInductor); the batch size stays free.

    Args:
        model: the network in eval mode, on the CPU.
        example: input images of shape (N, C, H, W), N >= 2.
        path: the file.
        metadata: texts about the network; `get_metadata()` of what is loaded has them.

    Raises:
        UsageError: the network cannot be exported, or not compiled here.
    """
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # slow to import

    program, texts = folded(model, example), {"aot_inductor.metadata": dict(metadata)}
    try:
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=texts)
    except Exception as error:  # the compiler has many kinds of failures, all meaning the same here
        raise UsageError(f"the network cannot be compiled (a C++ compiler is needed): {first_line(error)}") from error
    loaded = aoti_load_package(str(path))

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return logits_of(loaded(images), "library")

    return run
