"""Run by `test_lightning_processes.py` in two processes: trains at one go, and in two parts; ranks store their weights.

With `DistributedDataParallel`, then with sharded parameters (`fully_shard`).
"""

import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from potstill.integrations.lightning import CompressionCallback
from potstill.thinning import ThinningError

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
X = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (32,), generator=torch.Generator().manual_seed(1))
AGP = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8}
TIMES = {"starting_epoch": 1, "ending_epoch": 3, "frequency": 1}
SCHEDULE = {
    "pruners": {
        "filters": {
            "class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "group_type": "Filters",
            "weights": ["net.0.weight"],
        },
        "agp": {**AGP, "weights": ["net.3.weight"]},
    },
    "extensions": {"thin": {"class": "Thinner"}},
    "policies": [
        {"pruner": {"instance_name": "filters"}, "epochs": [0]},
        {"extension": {"instance_name": "thin"}, "epochs": [1]},
        {"pruner": {"instance_name": "agp"}, **TIMES},
    ],
}  # fmt: skip
SHARDED = {
    "pruners": {
        "agp": {**AGP, "weights": ["net.3.weight"]},
        "splicing": {
            "class": "SplicingPruner", "sensitivities": {"net.6.weight": 0.8},
            "low_thresh_mult": 0.9, "hi_thresh_mult": 1.1,
        },
    },
    "regularizers": {"gates": {"class": "L0Regularizer", "weights": ["net.0.weight"], "target_sparsity": 0.3}},
    "policies": [
        {"pruner": {"instance_name": "agp"}, **TIMES},
        {"pruner": {"instance_name": "splicing"}, **TIMES},
        {"regularizer": {"instance_name": "gates"}, "starting_epoch": 0, "ending_epoch": 3},
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


class Sharded(Module):
    """The same, of which each process holds a part."""

    def configure_model(self):
        if not self.sharded:
            for part in [*(layer for layer in self.net if list(layer.parameters())), self]:
                fully_shard(part, mesh=self.device_mesh["data_parallel"])
            self.sharded = True

    sharded = False


def fit(folder, epochs, resume=None, sharded=False, thin=True):
    """Train so many epochs on two processes; returns the parameters and the rank."""
    callback = CompressionCallback(SHARDED if sharded else SCHEDULE, example_inputs=X[:2], thin=thin)
    module = Sharded() if sharded else Module()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4)
    saves = pl.callbacks.ModelCheckpoint(folder, save_last=True)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1) if sharded else "ddp"
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback, saves],
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=resume)
    return {name: whole(tensor.detach()) for name, tensor in module.named_parameters()}, trainer.global_rank


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def main(folder):
    """Store what the test compares."""
    found = {}
    for kind, options in {"ddp": {}, "sharded": {"sharded": True, "thin": False}}.items():
        at_one_go, rank = fit(folder / kind / "whole", 4, **options)
        fit(folder / kind / "cut", 2, **options)
        again, _ = fit(folder / kind / "cut", 4, str(folder / kind / "cut" / "last.ckpt"), **options)
        found[kind] = {"whole": at_one_go, "again": again}
    try:
        fit(folder / "refused", 1, sharded=True)
    except ThinningError as error:
        found["refusal"] = str(error)
    torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
