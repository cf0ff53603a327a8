"""Run by `test_lightning_ddp.py` in two processes: trains at one go, and in two parts; each rank stores its weights."""

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn

from potstill.integrations.lightning import CompressionCallback

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
X = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (32,), generator=torch.Generator().manual_seed(1))
SCHEDULE = {
    "pruners": {
        "filters": {
            "class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "group_type": "Filters",
            "weights": ["net.0.weight"],
        },
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8,
            "weights": ["net.3.weight"],
        },
    },
    "extensions": {"thin": {"class": "Thinner"}},
    "policies": [
        {"pruner": {"instance_name": "filters"}, "epochs": [0]},
        {"extension": {"instance_name": "thin"}, "epochs": [1]},
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 1, "ending_epoch": 3, "frequency": 1},
    ],
}  # fmt: skip


class Module(pl.LightningModule):
    """A small network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(96, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def fit(folder, epochs, resume=None):
    """Train so many epochs on two processes; returns the module, the rank, and how often the network was wrapped."""
    callback = CompressionCallback(SCHEDULE, example_inputs=X[:2], thin=True)
    module = Module()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4)
    saves = pl.callbacks.ModelCheckpoint(folder, save_last=True)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback, saves],
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=resume)
    return module, trainer.global_rank


def main(folder):
    """Store what the test compares."""
    whole, rank = fit(folder / "whole", 4)
    fit(folder / "cut", 2)
    again, _ = fit(folder / "cut", 4, str(folder / "cut" / "last.ckpt"))
    torch.save({"whole": whole.state_dict(), "again": again.state_dict()}, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
