"""First thin, then quantize: int8 weights of a thinned network by torchao.

python examples/quantize.py
"""

import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from potstill import prune_channels


def main() -> None:
    """Thin a network, quantize it, and compare the outputs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10),
    ).eval()  # fmt: skip
    images = torch.randn(4, 3, 16, 16)
    recipe = prune_channels(model, images, sparsity=0.5)
    print(f"{recipe.parameters[0]:,} -> {recipe.parameters[1]:,} parameters")
    with torch.no_grad():
        expected = model(images)

    quantize_(model, Int8WeightOnlyConfig())
    with torch.no_grad():
        gap = (model(images) - expected).abs().max() / expected.abs().max()
    print(f"int8 weights: largest difference / largest output {float(gap):.0e}")


if __name__ == "__main__":
    main()
