"""Lightning: one callback carries a schedule out, and its state lies in Lightning's own checkpoints.

python examples/lightning_fit.py
"""

import argparse
import logging
import tempfile

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from potstill.integrations.lightning import CompressionCallback

SCHEDULE = {
    "regularizers": {
        "gates": {"class": "L0Regularizer", "weights": ["net.0.weight", "net.3.weight"], "target_sparsity": 0.5}
    },
    "policies": [{"regularizer": {"instance_name": "gates"}, "starting_epoch": 2, "ending_epoch": 6}],
}


class Digits(pl.LightningModule):
    """A small convolutional network for 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def main(epochs: int) -> None:
    """Train with gates, thin at the end, and say what is left."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    pl.seed_everything(0, verbose=False)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    train = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)
    test = DataLoader(TensorDataset(images[1400:], labels[1400:]), batch_size=400)

    compression = CompressionCallback(SCHEDULE, example_inputs=images[:2], thin=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[compression], logger=False, default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Digits()
        trainer.fit(module, train, test)
    before, after = compression.recipe.parameters
    accuracy = 100 * float(trainer.callback_metrics["val_acc"])
    print(f"{before:,} -> {after:,} parameters, accuracy of the last epoch {accuracy:.2f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    main(parser.parse_args().epochs)
