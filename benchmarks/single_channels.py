"""What layers of one channel cost in channels-last layout: thinned GoogLeNets with and without the hooks against it.

    python benchmarks/single_channels.py [--seeds 4 5 6 7] [--batches 1 16]

Each network keeps as many channels of each layer as chance says, of some branches one; milliseconds of the dense one
(the shortest), and of the thinned one without and with the hooks (docs/reliability.md, odd widths), in turns: by the
median of their ratios to the dense one.
"""

from __future__ import annotations

import argparse
import copy
import random

import torch
from tabulate import tabulate
from torch import nn

from potstill.compression.latency.measure import milliseconds, resized
from potstill.models import create_model
from potstill.thinning import thin


def thinned(dense: nn.Module, images: torch.Tensor, chance: random.Random, most: float) -> nn.Module:
    """Return a copy that keeps up to a share `most` of each layer's channels, at least one."""
    small = copy.deepcopy(dense)
    with torch.no_grad():
        for name, module in small.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith("inception_blocks"):
                kept = max(1, int(module.out_channels * most * chance.random()))
                for parameter in module.parameters():
                    parameter[kept:] = 0
    thin(small, images)
    return small


def without_hooks(model: nn.Module) -> tuple[nn.Module, int]:
    """Return a copy as it would be without the hooks, and their number."""
    bare, hooks = copy.deepcopy(model), 0
    for module in bare.modules():
        hooks += len(module._forward_hooks)
        module._forward_hooks.clear()
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 4 and parameter.shape[1] == 1:
                parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return bare, hooks


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[4, 5, 6, 7])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--most", type=float, default=0.6, help="share of its channels that a layer keeps at most")
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        torch.manual_seed(seed)
        dense = create_model("googlenet_cifar").to(memory_format=torch.channels_last)
        images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
        small = thinned(dense, images, random.Random(seed), options.most)
        bare, hooks = without_hooks(small)
        size = sum(parameter.numel() for parameter in small.parameters())
        for batch in options.batches:
            times = milliseconds([dense, bare, small], resized(images, batch), 2)
            rows.append([seed, f"{size:,}", hooks, batch, *(f"{time:.2f}" for time in times)])
    headers = ["seed", "parameters", "hooks", "batch", "dense ms", "without ms", "with ms"]
    print(tabulate(rows, headers, "github", disable_numparse=True))


if __name__ == "__main__":
    main()
