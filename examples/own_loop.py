"""A training loop of one's own: two lines put a schedule into it, three at the end make the network smaller.

python examples/own_loop.py
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from potstill import file_config, load, save

SCHEDULE = """
pruners:
  filters: {class: L1RankedStructureParameterPruner_AGP, initial_sparsity: 0.1, final_sparsity: 0.5,
            group_type: Filters, weights: [0.weight, 3.weight]}
policies:
  - {pruner: {instance_name: filters}, starting_epoch: 2, ending_epoch: 6, frequency: 1}
"""


def network() -> nn.Module:
    """Return a small network for 8x8 images of digits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def main(epochs: int) -> None:
    """Train, prune, thin, save, load."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    train, test = slice(0, 1400), slice(1400, None)

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    with tempfile.TemporaryDirectory() as folder:
        schedule = Path(folder, "schedule.yaml")
        schedule.write_text(SCHEDULE)
        batches = list(zip(images[train].split(50), labels[train].split(50), strict=True))
        scheduler = file_config(model, optimizer, schedule, example_inputs=images[:2])
        scheduler.attach(optimizer, minibatches_per_epoch=len(batches))

        for epoch in range(epochs):
            model.train()
            for x, y in batches:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
            print(f"epoch {epoch}: test accuracy {100 * accuracy:.2f} %")

        scheduler.finish()
        recipe = scheduler.thin(optimizer)
        print(recipe)
        file = Path(folder, "thinned.safetensors")
        save(model, recipe, file)
        again = load(network(), file)
        print("loaded again, equal:", torch.equal(again(images[test]), model.eval()(images[test])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    main(parser.parse_args().epochs)
