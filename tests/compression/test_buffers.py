"""Norms whose scale and shift are buffers, as in networks that are fine-tuned for detection."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from potstill.compression import (
    CompressionScheduler,
    PruningPolicy,
    RegularizationPolicy,
    RegularizerArgs,
)
from potstill.compression.pruners import L1RankedStructureParameterPruner
from potstill.compression.regularizers import GroupLassoRegularizer, L0Regularizer

CONV = ["0.weight"]
POLICIES = {
    "filters": lambda: PruningPolicy(L1RankedStructureParameterPruner(0.5, CONV)),
    "coupled": lambda: PruningPolicy(L1RankedStructureParameterPruner(0.5, CONV, "Coupled")),
    "lasso": lambda: RegularizationPolicy(
        GroupLassoRegularizer({CONV[0]: (1.3, "Coupled")}), RegularizerArgs(mode="proximal", keep_mask=True)
    ),
    "gates": lambda: RegularizationPolicy(L0Regularizer(CONV, target_sparsity=0.3)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_frozen_norm_of_buffers(name):
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(8)
    norm.weight.uniform_(0.5, 1.5)
    norm.bias.normal_()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    scale, x = norm.weight.clone(), torch.randn(4, 3, 6, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = CompressionScheduler(model, x)
    scheduler.add_policy(POLICIES[name](), starting_epoch=0, ending_epoch=2)
    scheduler.attach(optimizer, 4)
    for _ in range(8):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    scheduler.finish()
    dead = (model[0].weight.flatten(1) == 0).all(1)
    assert bool(dead.any())
    if name != "gates":
        assert torch.equal(norm.weight, scale), "masks are of parameters"
    masked = copy.deepcopy(model).eval()
    recipe = scheduler.thin(optimizer)
    assert len(model[0].weight) == len(norm.weight) == 8 - int(dead.sum())
    assert recipe.max_relative_difference <= 1e-5
    torch.testing.assert_close(model.eval()(x), masked(x))
