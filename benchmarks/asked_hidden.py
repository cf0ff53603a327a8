"""What pruners hide of what a schedule asks, and what thinning then removes: a table over five networks.

Lists all weights of convolutions and Linear layers but the last (and attention's packed projections), ranks their
filters by L1 once, without training, and thins. `asked` is the sum of floor(level x filters) over the listed weights,
`hidden` how many of these filters are zero, `fewer` and `more` how many of the listed weights have fewer or more than
asked, `gone` the share of the network's parameters that thinning removes.

    python benchmarks/asked_hidden.py [--networks mobilenet_v2 vit] [--levels 0.1 0.3 0.5]
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torchvision import models

from potstill.compression import CompressionScheduler, PruningPolicy
from potstill.compression.pruners import L1RankedStructureParameterPruner

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": partial(models.mobilenet_v2, num_classes=10),
    "resnext50_32x4d": partial(models.resnext50_32x4d, num_classes=10),
    "regnet_y_400mf": partial(models.regnet_y_400mf, num_classes=10),
    "resnet18, GroupNorm(32)": partial(models.resnet18, num_classes=10, norm_layer=partial(nn.GroupNorm, 32)),
    "ViT, 6 layers of 192": partial(
        models.VisionTransformer, 64, 16, num_layers=6, num_heads=6, hidden_dim=192, mlp_dim=768, num_classes=10
    ),
}
LAYERS = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)


def listed(model: nn.Module) -> list[str]:
    """Return the weights to prune: all of the layers, but that of the last one, whose filters are the classes."""
    owners = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
    weights = [f"{name}.{kind}" for name in owners for kind in ("weight", "in_proj_weight")]
    known = dict(model.named_parameters())
    return [name for name in weights if name in known and name != last_weight(model)]


def last_weight(model: nn.Module) -> str:
    """Return the weight whose filters are the classes."""
    return [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def row(name: str, level: float, group: str) -> tuple[str, ...]:
    """Prune once, count, thin."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    nn.init.normal_(model.get_parameter(last_weight(model)), std=0.02)  # ViT's starts as zeros: nothing to compare
    names, parameters = listed(model), sum(p.numel() for p in model.parameters())
    scheduler = CompressionScheduler(model, torch.randn(2, 3, 64, 64))
    pruner = L1RankedStructureParameterPruner(level, names, group)  # type: ignore[arg-type]
    scheduler.add_policy(PruningPolicy(pruner), epochs=[0])
    scheduler.on_epoch_begin(0)
    weights = [model.get_parameter(each).detach().flatten(1) for each in names]
    asked = [math.floor(level * len(weight) + 1e-9) for weight in weights]
    hidden = [int((weight == 0).all(1).sum()) for weight in weights]
    fewer = sum(wanted > found for wanted, found in zip(asked, hidden, strict=True))
    more = sum(wanted < found for wanted, found in zip(asked, hidden, strict=True))
    scheduler.thin()
    gone = 1 - sum(p.numel() for p in model.parameters()) / parameters
    counts = (f"{sum(asked):,}", f"{sum(hidden):,}", f"{fewer} of {len(names)}", str(more), f"{100 * gone:.1f} %")
    return (name, group, f"{100 * level:.0f} %", *counts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), help="parts of their names")
    parser.add_argument("--levels", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    options = parser.parse_args()
    logging.getLogger("potstill").setLevel(logging.ERROR)
    print("| network | groups | level | asked | hidden | fewer | more | gone |", flush=True)
    print("|---|---|---|---|---|---|---|---|")
    for name in (name for name in NETWORKS if any(part in name.lower() for part in map(str.lower, options.networks))):
        for group in ("Filters", "Coupled"):
            for level in options.levels:
                print(f"| {' | '.join(row(name, level, group))} |", flush=True)


if __name__ == "__main__":
    main()
