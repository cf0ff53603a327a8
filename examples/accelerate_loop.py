"""accelerate: attach to what `prepare` returns; the scheduler's state is saved and loaded with all others.

python examples/accelerate_loop.py
"""

import argparse
import tempfile

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from potstill.compression import dict_config

SCHEDULE = {
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8, "weights": ["*weight"],
        },
    },
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
}  # fmt: skip


def run(epochs: range, folder: str) -> nn.Module:
    """Train some epochs; from the second call on where the first one stopped."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(images, labels), batch_size=100)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    scheduler = dict_config(accelerator.unwrap_model(model), optimizer.optimizer, SCHEDULE)
    accelerator.register_for_checkpointing(scheduler)
    if epochs.start:
        accelerator.load_state(folder)
    scheduler.attach(optimizer, len(loader), steps=epochs.start * len(loader))
    for _ in epochs:
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    accelerator.save_state(folder)
    return accelerator.unwrap_model(model)


def main(epochs: int) -> None:
    """Train at one go, and in two parts: the weights are the same."""
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
        one = run(range(epochs), whole)
        run(range(epochs // 2), parts)
        two = run(range(epochs // 2, epochs), parts)
    zeros = sum(int((p == 0).sum()) for p in one.parameters()) / sum(p.numel() for p in one.parameters())
    print(f"zeros: {100 * zeros:.1f} %")
    print("stopped and resumed, equal:", all(map(torch.equal, one.state_dict().values(), two.state_dict().values())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    main(parser.parse_args().epochs)
