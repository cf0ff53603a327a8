"""What `recalibrate` of L0 gates is worth: accuracy just behind the window, and after an epoch of fine-tuning.

`python benchmarks/l0_recalibration.py` trains a small convolutional network with BatchNorm on digits for each seed:
dense epochs, a window of gates, one epoch more; with statistics of BatchNorm as training left them, and gathered anew
over the last N minibatches of the window.
"""

from __future__ import annotations

import argparse
import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from potstill.command.run.evaluation import evaluate
from potstill.compression import CompressionScheduler, RegularizationPolicy
from potstill.compression.regularizers import L0Regularizer
from potstill.models.datasets import load_dataset

NUMBERS = (0, 1, 4, 8, 16)
BATCH = 64


def train(model, data, optimizer, epochs: Sequence[int], scheduler=None) -> None:
    """Train for some epochs, under a scheduler if there is one."""
    model.train()
    steps = data.train.batch_count(BATCH)
    for epoch in epochs:
        if scheduler:
            scheduler.on_epoch_begin(epoch, optimizer, steps)
        for i, (images, labels) in enumerate(data.train.batches(BATCH, epoch)):
            at = (epoch, i, steps)
            if scheduler:
                scheduler.on_minibatch_begin(*at, optimizer)
            loss = F.cross_entropy(model(images), labels)
            if scheduler:
                loss = scheduler.before_backward_pass(*at, loss, optimizer)
            optimizer.zero_grad()
            loss.backward()
            if scheduler:
                scheduler.before_parameter_optimization(*at, optimizer)
            optimizer.step()
            if scheduler:
                scheduler.on_minibatch_end(*at, optimizer)


def network(channels: int, classes: int) -> nn.Module:
    """Return four convolutions with BatchNorm and a Linear."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 32), (32, 48), (48, 48)):
        parts = {"conv": nn.Conv2d(before, after, 3, 2, 1, bias=False), "norm": nn.BatchNorm2d(after), "act": nn.ReLU()}
        layers.append(nn.Sequential(OrderedDict(parts)))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, classes))


def run(seed: int, dense: int, window: int, share: float) -> dict[str, list[float]]:
    """Return accuracies by N: behind the window, and after one epoch more."""
    torch.manual_seed(seed)
    data = load_dataset("digits", None, validation_split=0.1, seed=seed)
    model = network(data.input_shape[0], len(data.classes))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    train(model, data, optimizer, range(dense))
    found = {"dense": [accuracy(model, data)]}
    states = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    for number in NUMBERS:
        torch.manual_seed(seed)
        model.load_state_dict(states[0])
        optimizer.load_state_dict(copy.deepcopy(states[1]))
        scheduler = CompressionScheduler(model, torch.randn(2, *data.input_shape))
        weights = ["*conv.weight"]
        gates = L0Regularizer(weights, target_sparsity=share, droprate_init=0.05, recalibrate=number)
        scheduler.add_policy(RegularizationPolicy(gates), starting_epoch=0, ending_epoch=window)
        train(model, data, optimizer, range(window), scheduler)
        behind = accuracy(model, data)
        train(model, data, optimizer, [window], scheduler)
        found[str(number)] = [behind, accuracy(model, data)]
        print(seed, number, found[str(number)], flush=True)
    return found


def accuracy(model, data) -> float:
    """Return the percentage of the test images that are classified right."""
    return evaluate(model, data.test, 256, torch.device("cpu")).accuracy()


def main() -> None:
    """Print a table: mean and range over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dense", type=int, default=3, help="dense epochs")
    parser.add_argument("--window", type=int, default=2, help="epochs with gates")
    parser.add_argument("--share", type=float, default=0.6, help="target_sparsity")
    options = parser.parse_args()
    runs = [run(seed, options.dense, options.window, options.share) for seed in range(options.seeds)]
    for key in runs[0]:
        columns = zip(*(found[key] for found in runs), strict=True)
        print(key, *(f"{sum(c) / len(c):.2f} ({min(c):.2f} to {max(c):.2f})" for c in columns))


if __name__ == "__main__":
    main()
