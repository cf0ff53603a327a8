"""Export of a network as ONNX."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .programs import first_line
from .registry import Runner, register_export


@register_export("onnx", "model.onnx", help='as ONNX (extra "onnx")', needs=("onnx", "onnxscript"))
def export_onnx(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner | None:
    """Write a network as ONNX; the batch size stays free, the metadata are the file's.

    Args:
        model: the network in eval mode, on the CPU.
        example: input images of shape (N, C, H, W), N >= 2.
        path: the file.
        metadata: texts about the network.

    Raises:
        UsageError: torch is too old, or the network cannot be exported.
    """
    if "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters:
        raise UsageError(f"ONNX needs a later torch than {torch.__version__}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, (example[:2],), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
            )
    except Exception as error:  # the exporter has many kinds of failures, all meaning the same here
        raise UsageError(f"the network cannot be exported: {first_line(error)}") from error
    if program is None:
        raise UsageError("torch exported nothing")
    program.model.metadata_props.update(metadata)
    program.save(str(path))
    return runner(path)


def runner(path: Path) -> Runner | None:
    """Return what runs an ONNX file; None where onnxruntime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return run
