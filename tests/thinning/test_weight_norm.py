"""Weights g v / |v| lose inputs exactly: g makes up for the part of the norm that goes."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.nn.utils.parametrizations import weight_norm

from potstill import CompressionScheduler
from potstill.compression import PruningPolicy, WeightAverage, Window
from potstill.compression.policies import PrunerArgs
from potstill.compression.pruners import SparsityLevelParameterPruner
from potstill.thinning import Recipe, ThinningError, load, save, thin

X = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))
G, V = (f"2.parametrizations.weight.original{number}" for number in (0, 1))


def old_style(layer, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return utils.weight_norm(layer, **options)


def chain(second, normed=weight_norm, out=6):
    return nn.Sequential(nn.Conv1d(3, 8, 2), nn.ReLU(), normed(second), nn.ReLU(), nn.Conv1d(out, 4, 1)).eval()


def dead(model, *channels):
    with torch.no_grad():
        model[0].weight[list(channels)], model[0].bias[list(channels)] = 0, 0
    return model


def left(second):
    """Parameters where 3 of 8 channels in front went: those of the second layer, and the plain ones."""
    return 5 * 3 * 2 + 5 + second + 4 * 6 + 4


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (chain(nn.Conv1d(8, 6, 3)), left(6 * 5 * 3 + 6 + 6)),
        (chain(nn.Conv1d(8, 6, 3), old_style), left(6 * 5 * 3 + 6 + 6)),
        (chain(nn.ConvTranspose1d(8, 6, 2, 2)), left(5 * 6 * 2 + 5 + 6)),  # each input has a norm of its own
    ],
    ids=["each output", "as a hook", "each input"],
)
def test_inputs_go_and_outputs_stay(model, size):
    before = dead(model, 0, 3, 5)(X)
    recipe = thin(model, X)
    assert sum(parameter.numel() for parameter in model.parameters()) == size
    torch.testing.assert_close(model(X), before)
    assert not recipe.refused


def test_the_magnitude_is_that_of_what_stays():
    model = dead(chain(nn.Conv1d(8, 6, 3)), 1, 2).double()
    g, v = (model.get_parameter(name).detach().clone() for name in (G, V))
    recipe = thin(model, X.double())
    kept = v[:, [0, 3, 4, 5, 6, 7]]
    wanted = g.flatten() * kept.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)
    torch.testing.assert_close(model.get_parameter(G).detach().flatten(), wanted)
    assert f"rescaled for norms of fewer weights: {G}" in str(recipe)


def test_recipes_compose_and_fit_another_copy(tmp_path):
    """Another copy has directions of its own (an average of weights): its magnitudes follow these."""
    model = dead(chain(nn.Conv1d(8, 6, 3)), 1, 2)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter(V)[:, 1:3] *= 3
    wanted = other(X)
    first = thin(model, X)
    second = thin(dead(model, 0), X)
    both = first.then(second)
    assert Recipe.from_json(both.to_json()).to_json() == both.to_json()
    assert torch.equal(load(chain(nn.Conv1d(8, 6, 3)), save(model, second, tmp_path / "small"))(X), model(X))
    first.apply(other)
    torch.testing.assert_close(other(X), wanted)
    twice = copy.deepcopy(other)
    second.apply(dead(twice, 0))
    assert twice.get_parameter(V).shape == (6, 5, 3)


@pytest.mark.parametrize(
    ("old", "new"),
    [(f'"{G}"', '"0.bias"'), (f'"directions": "{V}"', '"directions": "4.weight"'), ('"dim": 0', '"dim": 7')],
)
def test_a_damaged_recipe_is_refused(old, new):
    model = dead(chain(nn.Conv1d(8, 6, 3)), 1, 2)
    dense = copy.deepcopy(model)
    text = thin(model, X).to_json()
    head, magnitudes = text.split('"magnitudes"')
    assert old in magnitudes
    damaged = Recipe.from_json(f'{head}"magnitudes"{magnitudes.replace(old, new)}')
    with pytest.raises(ThinningError, match="the recipe scales '"):
        damaged.apply(dense)


class Shared(nn.Module):
    """Two directions with one magnitude."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(4, 2)
        self.g = nn.Parameter(torch.rand(4, 1) + 0.5)
        self.v, self.w = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(4, 8))

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(sum(nn.functional.linear(x, torch._weight_norm(v, self.g, 0)) for v in (self.v, self.w)))


def test_a_magnitude_that_serves_two_weights_cannot_make_up_for_both():
    model = Shared()
    with torch.no_grad():
        model.first.weight[:2], model.first.bias[:2] = 0, 0
    recipe = thin(model, torch.randn(5, 3))
    assert recipe.removes_nothing
    assert "its removal may change another sum over it (a norm of weights, say)" in recipe.refused[0].reason


class Transposed(nn.Module):
    """Directions that are a transposed parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(4, 2)
        self.g, self.v = nn.Parameter(torch.rand(4, 1) + 0.5), nn.Parameter(torch.randn(8, 4))

    def forward(self, x):
        weight = torch._weight_norm(self.v.t(), self.g, 0)
        return self.last(nn.functional.linear(self.first(x).relu(), weight))


def test_transposed_directions_are_read_by_their_norm():
    model = Transposed()
    with torch.no_grad():
        model.first.weight[:2], model.first.bias[:2] = 0, 0
    recipe = thin(model, torch.randn(5, 3))
    assert recipe.removes_nothing
    assert "its removal may change another sum over it (a norm of weights, say)" in recipe.refused[0].reason


def test_hidden_magnitudes_and_averages_follow():
    """A soft mask keeps a dense copy of g, and an average has directions of its own."""
    model = dead(chain(nn.Conv1d(8, 6, 3))[:3], 1, 2)  # its outputs are the model's: they stay where g is 0
    scheduler, average = CompressionScheduler(model, X), WeightAverage(0.5)
    pruner = SparsityLevelParameterPruner({G: 0.34})
    scheduler.add_policy(PruningPolicy(pruner, PrunerArgs(mask_on_forward_only=True)), Window.between(0, 9))
    scheduler.add_policy(average, Window.between(0, 9))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler.on_epoch_begin(0, optimizer, 2)
    for step in range(2):
        scheduler.on_minibatch_begin(0, step, 2, optimizer)
        optimizer.zero_grad()
        model(X).square().mean().backward()
        dead(model, 1, 2)
        scheduler.before_parameter_optimization(0, step, 2, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, step, 2, optimizer)
    hidden = scheduler.masks[G].mask == 0
    dense, averages = scheduler.masks[G].dense.clone(), {k: v.clone() for k, v in average._averages.items()}
    twin = copy.deepcopy(model)
    twin.load_state_dict({**twin.state_dict(), **averages})
    wanted = dead(twin, 1, 2)(X)
    scheduler.thin(optimizer)
    assert hidden.any()
    assert torch.equal(scheduler.masks[G].dense[hidden], dense[hidden])
    assert torch.equal(scheduler.masks[G].dense[~hidden], model.get_parameter(G)[~hidden])
    twin = copy.deepcopy(model)
    twin.load_state_dict({**twin.state_dict(), **average._averages})
    torch.testing.assert_close(twin(X), wanted)
