"""Layers without a bias that get one, so that it takes the constants of channels that go."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, Thinner
from potstill.thinning import Recipe, ThinningError, load, resize_by, save, thin


def network():
    """A filter of 0 with a bias of its own is a constant; what reads it has no bias."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False), nn.Flatten(), nn.Linear(54, 4, bias=False)
    )


@torch.no_grad()
def constant(model, rows):
    model[0].weight[rows] = 0
    model[0].bias[rows] = torch.rand(len(rows)) + 0.5
    return model


X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_nothing_is_added_unless_asked_for():
    model = constant(network(), [1, 2])
    recipe = thin(model, X)
    assert recipe.removes_nothing and model[2].bias is None
    assert any("no bias to take it (add_bias=True gives it one)" in kept.reason for kept in recipe.refused)


def test_a_bias_takes_the_constants():
    model = constant(network(), [1, 2])
    before, dense = copy.deepcopy(model), size(model)
    constants = model[2].weight[:, [1, 2], 0, 0] @ model[0].bias[[1, 2]].relu()
    recipe = thin(model, X, add_bias=True)
    torch.testing.assert_close(model[2].bias, constants)
    torch.testing.assert_close(model(X), before(X))
    # two filters of 3 x 3 x 3 and a bias each, two inputs of six filters; six numbers more
    assert size(model) == dense - 2 * (27 + 1) - 2 * 6 + 6
    assert recipe.parameters == (dense, size(model)) and recipe.biases == ("2.bias",)
    assert "biases added: 2.bias" in str(recipe)
    assert model[4].bias is None


def test_units_whose_activation_is_not_zero_at_zero_go():
    """PoolFormer v2 of timm: hidden units of 0 are constants behind StarReLU, and the layers have no biases."""
    timm = pytest.importorskip("timm.models.metaformer")
    widths, units = (16, 24), 4
    model = timm.MetaFormer(
        depths=(1, 1), dims=widths, num_classes=5, norm_layers=timm.GroupNorm1NoBias, use_mlp_head=False
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for stage in model.stages:
            stage.blocks[0].mlp.fc1.weight[:units] = 0
            stage.blocks[0].mlp.act.bias.fill_(0.3)
    dense, before = size(model), copy.deepcopy(model)
    assert thin(copy.deepcopy(model), images).removes_nothing
    thin(model, images, add_bias=True)
    assert size(model) == dense - sum(2 * units * width for width in widths) + sum(widths)
    torch.testing.assert_close(model(images), before(images), rtol=1e-4, atol=1e-5)


def test_its_layer_may_lose_filters_with_it():
    model = constant(network(), [1, 2])
    with torch.no_grad():
        model[2].weight[4] = 0
    before = copy.deepcopy(model)
    thin(model, X, add_bias=True)
    torch.testing.assert_close(model(X), before(X))
    assert (model[2].bias.shape, model[4].in_features) == ((5,), 45)


def test_the_optimizer_holds_it_beside_its_weight_and_trains_it():
    model = constant(network(), [1])
    groups = [{"params": [model[0].weight, model[2].weight]}, {"params": [model[0].bias, model[4].weight], "lr": 0.5}]
    optimizer = torch.optim.Adam(groups)
    model(X).sum().backward()
    optimizer.step()
    constant(model, [1])
    thin(model, X, optimizer=optimizer, add_bias=True)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for p in (model[0].weight, model[2].weight, model[2].bias)
    ]
    before = model[2].bias.detach().clone()
    model(X).sum().backward()
    optimizer.step()
    assert not torch.equal(model[2].bias, before)


class Loud(nn.Conv2d):
    """Adds its bias twice: another function."""

    def forward(self, x):
        y = super().forward(x)
        return y if self.bias is None else y + self.bias.reshape(-1, 1, 1)


def test_what_fails_leaves_model_and_optimizer_as_they_were():
    model = constant(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Loud(8, 6, 1, bias=False)), [1])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    held = list(optimizer.param_groups[0]["params"])
    recipe = thin(model, X, optimizer=optimizer, add_bias=True)
    assert recipe.removes_nothing and model[2].bias is None
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in held]


def thinned_twice():
    model = constant(network(), [1, 2])
    first = thin(model, X, add_bias=True)
    with torch.no_grad():
        model[2].weight[3] = 0
        model[2].bias[3] = 0
    return model, first, thin(constant(model, [0]), X, add_bias=True)


def test_recipes_with_new_biases_compose_and_are_stored(tmp_path):
    model, first, second = thinned_twice()
    both = Recipe.from_json(first.then(second).to_json())
    assert both.biases == ("2.bias",) and second.biases == ()
    assert '"version": 3' in both.to_json()
    again = network()
    both.apply(again)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    resized = resize_by(network(), model.state_dict(), [first, second])
    resized.load_state_dict(model.state_dict())
    path = save(model, second, tmp_path / "thinned.safetensors")
    spec = importlib.util.spec_from_file_location("loader", path.with_suffix(".py"))
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    wrapped = load(nn.DataParallel(network()), path).module
    for one in (resized, load(network(), path), loader.load(network()), wrapped):
        torch.testing.assert_close(one(X), model(X))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"2.bias"', '"0.bias"', "adds '0.bias'"),
        ('"2.bias"', '"1.bias"', "adds '1.bias'"),
        ('"2.bias"', '"7.bias"', "another model"),
        ('"2.bias"', '"2.training"', "the name of a bias"),
    ],
)
def test_biases_of_a_recipe_are_checked(old, new, message):
    recipe = thin(constant(network(), [1, 2]), X, add_bias=True)
    model = network()
    with pytest.raises(ThinningError, match=message):
        Recipe.from_json(recipe.to_json().replace(old, new)).apply(model)
    assert model[2].bias is None and len(model[0].weight) == 8


def test_a_file_of_another_network_adds_nothing(tmp_path):
    model = constant(network(), [1, 2])
    path = save(model, thin(model, X, add_bias=True), tmp_path / "thinned.safetensors")
    other = nn.Sequential(*network()[:3])
    with pytest.raises(ThinningError, match="another model"):
        load(other, path)
    assert other[2].bias is None


def test_a_schedule_asks_for_it():
    model = constant(network(), [1, 2])
    scheduler = CompressionScheduler(model, example_inputs=X)
    scheduler.add_policy(Thinner(add_bias=True), epochs=[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler.on_epoch_begin(0, optimizer, 1)
    scheduler.on_minibatch_begin(0, 0, 1, optimizer)
    assert len(model[0].weight) == 6 and scheduler.recipe.biases == ("2.bias",)


class Sloped(nn.Module):
    """An activation that makes a little of 0, by slopes that are learnt (xIELU)."""

    def __init__(self):
        super().__init__()
        self.rise, self.fall = nn.Parameter(torch.tensor([0.2])), nn.Parameter(torch.tensor([-0.1]))
        self.register_buffer("bend", torch.tensor(-0.5))

    def forward(self, x):
        rise, fall = nn.functional.softplus(self.rise), 0.5 + nn.functional.softplus(self.fall)
        return torch.where(x > 0, rise * x * x, (torch.expm1(torch.min(x, self.bend)) - x) * fall)


@pytest.mark.parametrize("add_bias", [False, True])
def test_what_a_learnt_slope_makes_of_zero_is_a_constant(add_bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), Sloped(), nn.Linear(8, 5, bias=False)).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad():
        model[0].weight[[1, 4, 6]] = 0
        before = model(x)
        recipe = thin(model, x, add_bias=add_bias)
        assert (model(x) - before).abs().max() <= 1e-12
    assert size(model) == (5 * 6 + 5 * 5 + 5 if add_bias else 8 * 6 + 8 * 5) + 2
    assert add_bias or "a constant other than 0 goes into 2, which has no bias to take it" in recipe.refused[0].reason
