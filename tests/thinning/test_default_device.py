"""A default device of the user's is for the user's tensors: here one on which nothing can be computed."""

import pytest
import torch
import torch._dynamo  # what optimizers import: torch 2.6 computes a few numbers at that, on the default device
from torch import nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, PruningPolicy, RegularizationPolicy
from potstill.compression.pruners import L1RankedStructureParameterPruner
from potstill.compression.regularizers import GroupLassoRegularizer, L0Regularizer, L1Regularizer
from potstill.thinning import Recipe, load, save, thin
from potstill.thinning.running.default_device import default_device

CPU = torch.device("cpu")


def test_torch_that_cannot_tell_means_the_cpu(monkeypatch):
    """As torch 2.6 once the user has taken a choice back."""
    monkeypatch.setattr(torch, "get_default_device", lambda: None.device)
    assert default_device() == CPU


@pytest.fixture
def default_is_meta(request):
    if request.config.getoption("--device"):
        pytest.skip("has a device of its own")
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Conv2d(3, 8, 3, padding=1, device=CPU) for _ in range(2))
        self.norm, self.last = nn.BatchNorm2d(8, device=CPU), nn.Linear(8, 4, device=CPU)
        self.places = set()

    def forward(self, x):
        self.places.add(torch.get_default_device().type)
        y = F.relu(self.norm(self.one(x) + self.two(x)))
        return self.last(F.adaptive_avg_pool2d(torch.cat([y, y], 1), 1).flatten(1).chunk(2, 1)[0])


def parts():
    strength = {"one.weight": (0.01, "Coupled")}
    return {
        "pruner": PruningPolicy(L1RankedStructureParameterPruner(0.25, ["one.weight"], group_type="Coupled")),
        "l1": RegularizationPolicy(L1Regularizer({"last.weight": 0.1})),
        "lasso": RegularizationPolicy(GroupLassoRegularizer(strength)),
        "gates": RegularizationPolicy(L0Regularizer(["one.weight"], target_sparsity=0.3, droprate_init=0.1)),
    }


@pytest.mark.parametrize("name", parts())
def test_schedules_run(default_is_meta, tmp_path, name):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 8, 8, generator=draw, device=CPU)
    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = CompressionScheduler(model, x)
    scheduler.add_policy(parts()[name], starting_epoch=0, ending_epoch=2)
    scheduler.attach(optimizer, 2)
    for _ in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    scheduler.finish()
    recipe = scheduler.thin(optimizer)
    assert recipe.removes_nothing == (name in ("l1", "lasso"))
    assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()
    expected = model.eval()(x)
    torch.testing.assert_close(load(Residual(), save(model, recipe, tmp_path / "thin")).eval()(x), expected)
    assert model.places == {"meta"}, "the model's own code finds what the user has chosen"


def test_thinning(default_is_meta):
    model = Residual().eval()
    with torch.no_grad():
        for module in (model.one, model.two, model.norm):
            module.weight[:3] = 0
            module.bias[:3] = 0
        model.norm.running_mean[:3] = 0
    assert thin(model, torch.ones(1, 3, 8, 8, device=CPU)).max_relative_difference <= 1e-5
    assert len(model.one.weight) == 5
