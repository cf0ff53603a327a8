"""Sensitivity analysis prunes what it says, one parameter at a time, and leaves the network as it was."""

from itertools import product

import pytest
import torch
from torch import nn

from potstill.compression.sensitivity import (
    Point,
    named_weights,
    prunable_weights,
    sensitivity_analysis,
    tolerated_levels,
)

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 5)
    )
    nn.init.uniform_(net[1].weight)
    nn.init.uniform_(net[1].bias)
    return net.eval()


def weights(net):
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def same(one, other):
    """Bit for bit: NaN and -0 too."""
    return all(torch.equal(*(state[name].view(-1).view(torch.uint8) for state in (one, other))) for name in one)


def test_elements_are_the_smallest_and_all_else_is_dense(model):
    before = weights(model)
    names, levels = ["3.weight", "0.weight"], [0, 0.3, 0.5]
    points = list(sensitivity_analysis(model, weights, names, levels))
    assert [(p.parameter, p.sparsity) for p in points] == list(product(names, levels))
    for point in points:
        dense = before[point.parameter]
        ordered = dense.abs().flatten().sort().values
        number = int(point.sparsity * dense.numel())
        expected = dense * (dense.abs() > ordered[number - 1]) if number else dense
        assert torch.equal(point.scores[point.parameter], expected)
        assert same(*({n: t for n, t in s.items() if n != point.parameter} for s in (point.scores, before)))


def test_patterns_leave_out_what_has_no_such_structures(model):
    assert named_weights(model, ["3.*", "0*"], "filter") == ["3.weight", "0.weight"]
    assert named_weights(model, "3.*") == ["3.weight", "3.bias"]
    points = sensitivity_analysis(model, lambda net: None, "0.*", [0.5], "channel")
    assert [point.parameter for point in points] == ["0.weight"]
    for wrong in ("3.bias", "*.bias", ["*.weight", "3.bias"]):
        with pytest.raises(ValueError, match="Filters needs a weight of 2 dimensions or more"):
            named_weights(model, wrong, "filter")


def test_filters_take_bias_and_norm_along(model):
    before = weights(model)
    (point,) = sensitivity_analysis(model, weights, "0.weight", [0.5], "filter", IMAGES)
    weakest = before["0.weight"].abs().mean((1, 2, 3)).argsort()[:4]
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        expected = before[name].clone()
        expected[weakest] = 0
        assert torch.equal(point.scores[name], expected), name
    (alone,) = sensitivity_analysis(model, weights, "0.weight", [0.5], "filter")
    assert torch.equal(alone.scores["0.weight"], point.scores["0.weight"])
    assert torch.equal(alone.scores["1.bias"], before["1.bias"])


def test_channels_are_inputs(model):
    before = weights(model)
    (point,) = sensitivity_analysis(model, weights, "3.weight", [0.25], "channel", IMAGES)
    expected = before["3.weight"].clone()
    expected[:, before["3.weight"].abs().mean((0, 2, 3)).argsort()[:2]] = 0
    assert torch.equal(point.scores["3.weight"], expected)


def test_nothing_is_evaluated_twice(model):
    """8 filters: 0 and 0.1 prune none, 0.25 and 0.3 two, 0.5 four; the second weight's 0 is the dense network too."""
    seen = []

    def evaluate(net):
        seen.append(int((net[0].weight.flatten(1) == 0).all(1).sum()))
        return len(seen)

    points = list(sensitivity_analysis(model, evaluate, ["0.weight", "5.weight"], [0, 0.1, 0.25, 0.3, 0.5], "filter"))
    assert [p.scores for p in points] == [1, 1, 2, 2, 3, 1, 1, 4, 4, 5]
    assert seen == [0, 2, 4, 0, 0]


def test_the_network_is_bit_identical_afterwards(model):
    with torch.no_grad():
        model[0].weight.view(-1)[:3] = torch.tensor([-0.0, float("nan"), float("inf")])
    before = weights(model)
    for _ in sensitivity_analysis(model, lambda net: net.train()(IMAGES), "3.weight", [0.5], "filter", IMAGES):
        assert same(weights(model), before)
    assert same(weights(model), before)
    assert model[3].weight.requires_grad and model[3].weight.is_leaf


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_network_is_bit_identical_after_an_error(model, error):
    before = weights(model)

    def evaluate(net):
        assert not same(weights(net), before)
        raise error

    with pytest.raises(error):
        next(sensitivity_analysis(model, evaluate, "3.weight", [0.5], "filter", IMAGES))
    assert same(weights(model), before)


def test_the_first_points_can_be_left_out(model):
    more = (model, lambda net: net[0].weight.detach().abs().sum().item(), ["0.weight", "3.weight"], [0, 0.2, 0.7])
    whole = list(sensitivity_analysis(*more))
    for start in range(len(whole) + 1):
        assert list(sensitivity_analysis(*more, start=start)) == whole[start:]
    assert isinstance(whole[0], Point)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["9.weight"], [0.5]), "the name '9.weight' fits no parameter"),
        (("0.weight", [0.5, 1.5]), "a sparsity must be in 0..1, not 1.5"),
        ((["0.weight", "0.bias"], [0.5], "filter"), r"Filters needs a weight of 2 .* or more; 0.bias has shape \(8,\)"),
        (("0.weight", [0.5], "filters"), "no structure 'filters': one of element, filter, channel"),
    ],
)
def test_mistakes_are_told_before_anything_is_evaluated(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        sensitivity_analysis(model, lambda net: pytest.fail("evaluated"), *arguments)


def test_weights_worth_pruning():
    net = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "norm": nn.LayerNorm([4, 4]),
            "embedding": nn.Embedding(5, 6),
            "up": nn.ConvTranspose2d(8, 1, 2),
            "head": nn.Linear(6, 1),
        }
    )
    everything = [f"{name}.weight" for name in ("conv", "depthwise", "up", "head")]
    assert prunable_weights(net) == everything
    assert prunable_weights(net, "filter") == ["conv.weight", "depthwise.weight"]
    assert prunable_weights(net, "channel") == ["conv.weight", "up.weight", "head.weight"]


def test_tolerated_levels():
    table = {"a": [98, 97.5, 96, 98], "b": [98, 98, 98, 97], "c": [90, 98, 98, 98]}
    points = [(name, level / 4, accuracy) for name, row in table.items() for level, accuracy in enumerate(row)]
    assert tolerated_levels(points, 97) == {"a": 0.25, "b": 0.75, "c": 0.0}
