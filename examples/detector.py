"""A detector of torchvision: half of the multiply-adds of its backbone and heads go, whatever sizes its code fixes.

python examples/detector.py
"""

import torch
import torchvision

from potstill import prune_channels


def main() -> None:
    """Prune SSDlite with weights as initialised; a list of images of any size is what it takes."""
    torch.manual_seed(0)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    images = [torch.rand(3, 160, 160)]
    recipe = prune_channels(model, (images,), macs=0.7)
    (before, after), (macs, left) = recipe.parameters, recipe.macs
    print(f"{before:,} -> {after:,} parameters, {macs:,} -> {left:,} multiply-adds")
    found = model(images)[0]
    print("boxes, labels, scores:", tuple(found["boxes"].shape), tuple(found["labels"].shape), len(found["scores"]))


if __name__ == "__main__":
    main()
