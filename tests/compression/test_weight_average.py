"""Averages of weights: the formula, zeros of masks, thinning along, a resume to the bit."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, Thinner, WarmUp, WeightAverage
from potstill.compression.policies import PrunerArgs
from potstill.compression.pruners.element_levels import SparsityLevelParameterPruner
from potstill.compression.pruners.ranked_by_weight import L1RankedStructureParameterPruner

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
WINDOW = {"starting_epoch": 0, "ending_epoch": 9}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def made(model, decay=0.7, prune_at=None, thin_at=None, args=None):
    scheduler = CompressionScheduler(model, example_inputs=X)
    if prune_at is not None:
        pruner = L1RankedStructureParameterPruner(group_type="Filters", desired_sparsity=0.5, weights=["0.weight"])
        scheduler.add_policy(PruningPolicy(pruner), epochs=[prune_at])
    if args is not None:
        scheduler.add_policy(PruningPolicy(SparsityLevelParameterPruner({"3.weight": 0.5}), args), epochs=[1, 2])
    if thin_at is not None:
        scheduler.add_policy(Thinner(), epochs=[thin_at])
    average = WeightAverage(decay)
    scheduler.add_policy(average, **WINDOW, name="average")
    return scheduler, average


def train(scheduler, optimizer, epochs, after=lambda: None):
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch, optimizer, 2)
        for i in range(2):
            scheduler.on_minibatch_begin(epoch, i, 2, optimizer)
            optimizer.zero_grad()
            scheduler.model.train()(X).square().mean().backward()
            scheduler.before_parameter_optimization(epoch, i, 2, optimizer)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, i, 2, optimizer)
            after()
        scheduler.on_epoch_end(epoch, optimizer)


def test_the_formula():
    model, expected, steps = network(), {}, []
    scheduler, average = made(model)

    def follow():
        decay = min(0.7, (1 + len(steps)) / (10 + len(steps)))
        for name, tensor in model.state_dict().items():
            value = tensor.double()
            mean = expected.get(name, value)
            expected[name] = decay * mean + (1 - decay) * value if tensor.is_floating_point() else value
        steps.append(decay)

    train(scheduler, sgd(model), range(4), follow)
    assert steps[0] == 0.1 and steps[-1] == pytest.approx(8 / 17)
    found = average.averages()
    assert found.keys() == model.state_dict().keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["0.weight"], model[0].weight)


def test_what_is_lent_is_given_back_to_the_bit():
    model = network()
    scheduler, average = made(model, prune_at=1)
    with average.applied():
        assert torch.equal(model[0].weight, network()[0].weight)  # before a step there is no average
    train(scheduler, sgd(model), range(3))
    own, expected = copy.deepcopy(model.state_dict()), average.averages()

    def fail():
        with average.applied():
            assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("args", [None, PrunerArgs(mask_on_forward_only=True, use_double_copies=True)])
def test_zeros_of_masks_are_zeros_of_averages(args):
    model = network()
    scheduler, average = made(model, prune_at=1, args=args)
    checked = []

    def zeros_agree():
        for name, parameter in model.named_parameters():
            hidden = parameter == 0
            assert bool((average.averages()[name][hidden] == 0).all())
            checked.append(int(hidden.sum()))

    train(scheduler, sgd(model), range(3), zeros_agree)
    assert max(checked) >= 24
    scheduler.masks.set("another", "0.weight", torch.ones(8, 6).index_fill(1, torch.tensor([0]), 0))
    with average.applied():
        assert bool((model[0].weight[:, 0] == 0).all())
    assert bool((average.averages()["0.weight"][:, 0] == 0).all())
    expected = {name: tensor.clone() for name, tensor in average.averages().items()}
    average.take()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    scheduler.masks.apply()
    assert torch.equal(model[3].weight, expected["3.weight"])
    assert average.averages() == {}


def test_averages_are_thinned_along():
    """Thinned in the middle or at the end: the averaged networks compute the same."""
    outputs = []
    for thin_at in (None, 2):
        model = network()
        scheduler, average = made(model, prune_at=1, thin_at=thin_at)
        train(scheduler, sgd(model), range(4))
        if thin_at is not None:
            assert average.averages()["0.weight"].shape == (4, 6) and average.averages()["1.running_mean"].shape == (4,)
        with average.applied():
            outputs.append(model.eval()(X))
        average.take()
        recipe = scheduler.thin()
        assert recipe.max_relative_difference <= 1e-5 and model[0].out_features == 4
        torch.testing.assert_close(model.eval()(X), outputs[-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_a_resumed_average_ends_with_the_same_bits(tmp_path):
    model = network()
    scheduler, average = made(model, prune_at=1, thin_at=2)
    optimizer = sgd(model)
    train(scheduler, optimizer, range(3))
    torch.save([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], tmp_path / "state.pt")
    train(scheduler, optimizer, range(3, 5))
    weights, momenta, state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = network()
    for recipe in scheduler.recipes:
        recipe.apply(other)
    other.load_state_dict(weights)
    again, its_average = made(other, prune_at=1, thin_at=2)
    again.load_state_dict(state)
    resumed = sgd(other)
    resumed.load_state_dict(momenta)
    train(again, resumed, range(3, 5))
    for name, tensor in average.averages().items():
        assert torch.equal(its_average.averages()[name], tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": torch.zeros(3)}, r"average.*averages.0.weight.*shape"),
        ({"no.weight": torch.zeros(3)}, "unknown fields: 'no.weight'"),
        ({"0.weight": torch.full((8, 6), torch.nan)}, "not finite"),
    ],
)
def test_a_strangers_averages_are_checked(change, message):
    scheduler, _ = made(network())
    train(scheduler, sgd(scheduler.model), range(1))
    state = scheduler.state_dict()
    state["policies"]["average"]["averages"] = {**state["policies"]["average"]["averages"], **change}
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(state)


class Recorded(torch.optim.SGD):
    """Notes the rate of each step."""

    def step(self, closure=None):
        self.rates = [*getattr(self, "rates", []), self.param_groups[0]["lr"]]
        return super().step(closure)


@pytest.mark.parametrize("start", [0.0, 0.2])
def test_warm_up_rises_linearly_and_leaves_the_rate_alone(start):
    model = network()
    scheduler = CompressionScheduler(model, example_inputs=X)
    scheduler.add_policy(WarmUp(start), epochs=None, starting_epoch=1, ending_epoch=4)
    optimizer, between = Recorded(model.parameters(), 0.4), set()
    train(scheduler, optimizer, range(5), lambda: between.add(optimizer.param_groups[0]["lr"]))
    factors = [start + (1 - start) * (i + 1) / 6 for i in range(6)]
    assert optimizer.rates == pytest.approx([0.4, 0.4, *(0.4 * factor for factor in factors), 0.4, 0.4])
    assert between == {0.4}


def test_a_rate_that_is_set_during_warm_up_stays():
    from potstill.compression import dict_config

    model = network()
    optimizer = Recorded(model.parameters(), 0.4)
    policies = [
        {"lr_scheduler": {"instance_name": "fall"}, "starting_minibatch": 0, "ending_minibatch": 6},
        {"extension": {"instance_name": "warm"}, "starting_epoch": 0, "ending_epoch": 2},
    ]
    fall = {"class": "MultiStepLR", "milestones": [2], "gamma": 0.5}
    schedule = {"lr_schedulers": {"fall": fall}, "extensions": {"warm": {"class": "WarmUp"}}, "policies": policies}
    scheduler = dict_config(model, optimizer, schedule, example_inputs=X)
    train(scheduler, optimizer, range(3))
    assert optimizer.rates == pytest.approx([0.1, 0.2, 0.2 * 0.75, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("decay", [1.5, -1, "a", float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="between 0 and"):
        WeightAverage(decay)


def test_one_that_no_scheduler_has_says_so():
    average = WeightAverage()
    assert repr(average) == "WeightAverage, in no scheduler yet"
    with pytest.raises(AttributeError, match=r"this WeightAverage has no scheduler yet: add it .* add_policy"):
        average.update()
    assert not hasattr(average, "nothing_of_it")
