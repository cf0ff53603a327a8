"""Export of a network as ONNX, checked against torch where onnxruntime is installed."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .registry import register_export

logger = logging.getLogger("potstill")

TOLERANCE = 1e-4
"""Largest difference to torch, relative to the largest output: other kernels round otherwise."""


@register_export("onnx", "model.onnx", help='as ONNX (extra "onnx")')
def export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write a network in eval mode as ONNX; the batch size stays free.

    Args:
        model: the network.
        example: input images of shape (N, C, H, W), N >= 2.
        path: the file.

    Raises:
        UsageError: the extra `onnx` is not installed, torch is too old, the network cannot be exported, or the file
            computes otherwise.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise UsageError('--export-onnx needs the extra "onnx": pip install "potstill[onnx]"') from error
    if "dynamic_shapes" not in inspect.signature(torch.onnx.export).parameters:
        raise UsageError(f"--export-onnx needs a later torch than {torch.__version__}")
    plain = model.eval().cpu()
    images = example.cpu().contiguous()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                plain, (images,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False
            )
    except Exception as error:  # the exporter has many kinds of failures, all meaning the same here
        raise UsageError(f"the network cannot be exported: {str(error).strip().splitlines()[0]}") from error
    _save(program, path)
    logger.info("%s: written; %s", path, _checked(plain, images, path))


def _save(program: torch.onnx.ONNXProgram | None, path: Path) -> None:
    """Save the exported program.

    Raises:
        UsageError: there is none, or the file cannot be written.
    """
    if program is None:
        raise UsageError("torch exported nothing")
    try:
        program.save(str(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _checked(model: nn.Module, images: Tensor, path: Path) -> str:
    try:
        import onnxruntime
    except ImportError:
        return "not checked (onnxruntime is not installed)"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(images)
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not difference <= TOLERANCE:
        raise UsageError(f"{path} computes something else than the network: relative difference {difference:.1e}")
    return f"onnxruntime computes the same (relative difference {difference:.1e})"
