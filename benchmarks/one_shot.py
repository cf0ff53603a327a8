"""Channels pruned in one call, by each score, beside Torch-Pruning with the same score and the same multiply-adds.

    pip install torch-pruning
    python benchmarks/one_shot.py --write        # docs/one_shot_results.md

Trains each network on handwritten digits for a few epochs, prunes copies of it to a share of their multiply-adds with
either library, and tests them before any fine-tuning, without and with BatchNorm's statistics gathered anew.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from potstill import prune_channels
from potstill.models import create_model, model_info
from potstill.models.datasets import load_dataset
from potstill.thinning import count_macs

SCORES = ("l1", "l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian", "random")
PAGE = Path(__file__).parents[1] / "docs" / "one_shot_results.md"
Batches = Sequence[tuple[Tensor, Tensor]]


def trained(name: str, batches: Callable[[int], Batches], epochs: int, seed: int) -> nn.Module:
    """Return a network trained on the digits, with a one-cycle learning rate."""
    torch.manual_seed(seed)
    model = create_model(name).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs * len(batches(0)))
    for epoch in range(epochs):
        for images, labels in batches(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            rate.step()
    return model.eval()


def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the share of images whose class is found, in percent."""
    model.eval()
    with torch.no_grad():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)
    return 100 * right / sum(len(labels) for _, labels in batches)


def recalibrated(model: nn.Module, batches: Batches) -> nn.Module:
    """Return a copy whose BatchNorm statistics are those of the batches."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    return model


def losses_on(batches: Batches) -> Callable[[nn.Module], Iterator[Tensor]]:
    """Return what `prune_channels` takes for scores that look at data."""
    return lambda model: (F.cross_entropy(model(images), labels) for images, labels in batches)


def by_peer(model: nn.Module, x: Tensor, macs: float, score: str, batches: Batches) -> nn.Module:
    """Prune a copy with Torch-Pruning, globally, to the same share of multiply-adds by bisection over its ratio."""
    low, high, best = 0.0, 0.98, model
    wanted = macs * count_macs(model, x)
    for _ in range(12):
        ratio = (low + high) / 2
        found = _peer(model, x, ratio, score, batches)
        if count_macs(found, x) <= wanted:
            high, best = ratio, found
        else:
            low = ratio
    return best


def _peer(model: nn.Module, x: Tensor, ratio: float, score: str, batches: Batches) -> nn.Module:
    import torch_pruning as tp

    torch.manual_seed(0)
    model = copy.deepcopy(model)
    kinds: dict[str, Any] = {
        "l1": lambda: tp.importance.MagnitudeImportance(p=1),
        "l2": lambda: tp.importance.MagnitudeImportance(p=2),
        "bn_scale": tp.importance.BNScaleImportance,
        "fpgm": tp.importance.FPGMImportance,
        "lamp": tp.importance.LAMPImportance,
        "taylor": tp.importance.TaylorImportance,
        "hessian": tp.importance.HessianImportance,
        "random": tp.importance.RandomImportance,
    }
    importance = kinds[score]()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    pruner = tp.pruner.MetaPruner(
        model, x, importance=importance, global_pruning=True, pruning_ratio=ratio, ignored_layers=last
    )
    if score == "taylor":
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()
    if score == "hessian":
        importance.zero_grad()
        for images, labels in batches[:1]:
            for loss in F.cross_entropy(model(images), labels, reduction="none")[:32]:
                model.zero_grad()
                loss.backward(retain_graph=True)
                importance.accumulate_grad(model)
    pruner.step()
    return model


def compare(name: str, options: argparse.Namespace) -> list[list[object]]:
    """Return a row for each score."""
    data = load_dataset("digits", input_shape=model_info(name).input_shape)
    train = lambda epoch: list(data.train.batches(64, epoch))  # noqa: E731
    test = list(data.test.batches(64, 0))
    model = trained(name, train, options.epochs, options.seed)
    x, some = test[0][0][:2], train(0)[:4]
    dense = accuracy(model, test)
    rows = []
    for score in options.scores:
        ours = copy.deepcopy(model)
        torch.manual_seed(0)
        prune_channels(ours, x, macs=options.macs, score=score, losses=losses_on(some))
        theirs = by_peer(model, x, options.macs, score, some)
        row: list[object] = [name, f"{dense:.2f}", score]
        for pruned in (ours, theirs):
            size = sum(p.numel() for p in pruned.parameters())
            share = count_macs(pruned, x) / count_macs(model, x)
            after = accuracy(recalibrated(pruned, train(0)), test)
            row += [f"{size:,}", f"{100 * share:.1f}", f"{accuracy(pruned, test):.2f}", f"{after:.2f}"]
        rows.append(row)
        print(*row, flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare; print the table, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20_cifar", "googlenet_cifar"])
    parser.add_argument("--scores", nargs="+", default=list(SCORES))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--macs", type=float, default=0.6, help="the share to keep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args(arguments)
    rows = [row for name in options.networks for row in compare(name, options)]
    ours, theirs = (["parameters", "MACs %", "top1 %", "top1 %, BN anew"] for _ in range(2))
    head = ["network", "dense %", "score", *ours, *(f"TP: {text}" for text in theirs)]
    table = tabulate(rows, head, tablefmt="github", disable_numparse=True)
    print(table)
    if options.write:
        facts = {"networks": " ".join(options.networks), "macs": 100 * options.macs, "epochs": options.epochs}
        PAGE.write_text(TEXT.format(table=table, **facts), encoding="utf-8")


TEXT = """\
# One call, beside Torch-Pruning

`python benchmarks/one_shot.py --networks {networks} --write` (torch-pruning 1.6): trained for {epochs} epochs
on handwritten digits, pruned to {macs:g} % of the multiply-adds by each score, and tested before any fine-tuning on 359
images (one image is 0.28 %); "BN anew": statistics of BatchNorm gathered again over one epoch. TP is Torch-Pruning's
global pruner with the score of the same name, its ratio found by bisection. One seed.

{table}
"""

if __name__ == "__main__":
    main()
