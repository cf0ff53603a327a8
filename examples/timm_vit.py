"""A vision transformer of timm, pruned in one call: the fewest channels whose removal reaches the target go.

python examples/timm_vit.py
"""

import timm
import torch

from potstill import prune_channels


def main() -> None:
    """Prune a small ViT with weights as initialised (`pretrained=True` would load trained ones)."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=10).eval()
    images = torch.randn(2, 3, 64, 64)
    recipe = prune_channels(model, images, macs=0.6, score="l2")
    (before, after), (macs, left) = recipe.parameters, recipe.macs
    print(f"{before:,} -> {after:,} parameters, {macs:,} -> {left:,} multiply-adds")
    print("units of the MLPs:", [block.mlp.fc1.out_features for block in model.blocks])
    print(f"largest difference / largest output: {recipe.max_relative_difference:.1e}")


if __name__ == "__main__":
    main()
