"""Export of a network as ONNX in 8 bits: weights and activations, with ranges of real images (static quantization)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from .registry import Runner, register_export
from .to_onnx import export_onnx, runner

BATCH = 32


@register_export(
    "int8", "model.int8.onnx", help="as ONNX in 8 bits", lossy=True, needs=("onnx", "onnxscript", "onnxruntime")
)
def export_int8(model: nn.Module, example: Tensor, path: Path, metadata: Mapping[str, str]) -> Runner | None:
    """Write a network as ONNX whose convolutions and linear layers compute in 8 bits.

    Weights have a scale for each channel, activations one for each tensor, from the smallest to the largest value that
    the images gave (Jacob et al. 2018, sections 2.1 and 3).

    Args:
        model: the network in eval mode, on the CPU.
        example: images of the data set, of shape (N, C, H, W): they give the ranges.
        path: the file.
        metadata: texts about the network.

    Raises:
        UsageError: the network cannot be exported as ONNX.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        """The images, a few at a time."""

        def __init__(self, name: str) -> None:
            self._batches: Iterator[Tensor] = iter(example.split(BATCH))
            self._name = name

        def get_next(self) -> dict[str, object] | None:
            batch = next(self._batches, None)
            return None if batch is None else {self._name: batch.numpy()}

    whole = path.with_name("float.onnx")
    export_onnx(model, example[:2], whole, metadata)
    logging.getLogger().disabled, before = True, logging.getLogger().disabled  # it advises what is done here on purpose
    try:
        quantize_static(
            whole, path, Images(_input(whole)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        logging.getLogger().disabled = before
    for file in (whole, whole.with_name(f"{whole.name}.data")):
        file.unlink(missing_ok=True)
    return runner(path)


def _input(path: Path) -> str:
    import onnx

    return str(onnx.load(path, load_external_data=False).graph.input[0].name)
