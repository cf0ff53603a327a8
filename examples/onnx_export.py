"""The thinned network as ONNX: what onnxruntime computes is what the network computes, at any batch size.

python examples/onnx_export.py
"""

import tempfile
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from potstill import prune_channels


def main() -> None:
    """Thin a network, export it, run it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10),
    ).eval()  # fmt: skip
    images = torch.randn(4, 3, 16, 16)
    recipe = prune_channels(model, images, sparsity=0.5)
    print(f"{recipe.parameters[0]:,} -> {recipe.parameters[1]:,} parameters")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "thinned.onnx")
        batch = {"input": {0: torch.export.Dim("batch")}}
        torch.onnx.export(model, (images,), file, input_names=["input"], dynamic_shapes=batch, verbose=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for count in (4, 1):
            found = torch.tensor(session.run(None, {"input": images[:count].numpy()})[0])
            with torch.no_grad():
                expected = model(images[:count])
            gap = (found - expected).abs().max() / expected.abs().max()
            print(f"batch of {count}: largest difference / largest output {float(gap):.0e}")


if __name__ == "__main__":
    main()
