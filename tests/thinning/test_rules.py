"""What each rule notes besides which channels are the same: roles, biases, costs, sums, sizes without parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from potstill.thinning import thin, trace

from .networks import Between, Whole, class_of, left_after

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Net(Between):
    """With a scale and a shift for the 8 units."""

    def __init__(self, function, width=8):
        super().__init__(function, width)
        self.scale, self.shift = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(8))


def test_roles_of_scales_and_shifts():
    graph = trace(Net(lambda m, x: m.scale * x.relu() + m.shift), X)
    roles = {(use.name, use.dim): use.role for use in graph.uses}
    assert (roles["scale", 0], roles["shift", 0]) == ("scale", "shift")
    assert (roles["first.weight", 0], roles["first.bias", 0], roles["second.weight", 1]) == ("out", "out", "in")


def test_the_bias_of_a_layer_whose_input_is_not_contiguous_is_its_own():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.second(self.first(x.transpose(1, 2)).relu())

    graph = trace(Turned(), torch.randn(2, 6, 5))
    assert set(graph.coverage("first.weight", [2])) == {"first.weight", "first.bias"}
    assert graph.use("first.bias").role == "out"
    assert [layer.bias for layer in graph.layers] == ["first.bias", "second.bias"]


def test_costs_count_products_of_activations():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))

        def forward(self, x):
            return (self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)

    model, x = Attention(), torch.randn(2, 5, 6)
    graph = trace(model, x)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert int(graph.macs(torch.ones(graph.count + 1))) == counter.get_total_flops() / 2 / len(x)
    assert graph.other_macs == 2 * 5 * 5 * 8


def test_roles_of_a_bilinear_layer():
    model = Between(lambda m, x: m.both(x, x.tanh()), 4, {"both": nn.Bilinear(8, 8, 4)})
    roles = {(use.name, use.dim): use.role for use in trace(model, X).uses}
    assert [roles["both.weight", dim] for dim in range(3)] == ["out", "in", "in"]


def test_a_bilinear_layer_reads_all_of_the_input():
    found = class_of(Between(lambda m, x: m.both(x, X), 4, {"both": nn.Bilinear(8, 6, 4)}), X, "both.weight", 2)
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "reads an input of fixed size")


def test_a_product_of_a_matrix_with_a_vector_makes_channels():
    model = Between(lambda m, x: torch.mv(m.up, x.mean(0)), 16, {"up": nn.Parameter(torch.randn(16, 8))})
    dead = [(0, [1, 2])]
    left, _ = left_after(model, (X,), first__weight=dead, first__bias=dead, up=[(0, [3, 4, 5])])
    assert (left["first.weight"], left["up"], left["second.weight"]) == ((6, 6), (13, 6), (3, 13))


def test_a_product_with_a_vector_sums_over_channels():
    model = Net(lambda m, x: torch.mv(x.relu(), m.scale).unsqueeze(1).expand(-1, 2), width=2)
    with torch.no_grad():
        model.first.weight[:3], model.first.bias[:3] = 0, 0
        expected = model(X)
        thin(model, X)
        assert (len(model.first.weight), len(model.scale)) == (5, 5)
        torch.testing.assert_close(model(X), expected)


@pytest.mark.parametrize("total", [lambda x: x.sum(1, keepdim=True), lambda x: x.norm(dim=1, keepdim=True)])
def test_dead_channels_leave_sums_over_them(total):
    model = Net(lambda m, x: total(x.relu()), width=1)
    with torch.no_grad():
        model.first.weight[:3], model.first.bias[:3] = 0, 0
        expected = model(X)
        thin(model, X)
        assert len(model.first.weight) == 5
        torch.testing.assert_close(model(X), expected)


def test_losses_of_elements_keep_their_channels():
    model = Net(lambda m, x: F.mse_loss(x.relu(), x.tanh(), reduction="none"))
    dead = [(0, [1, 2])]
    left, _ = left_after(model, (X,), first__weight=dead, first__bias=dead)
    assert (left["first.weight"], left["second.weight"]) == ((6, 6), (3, 6))


FIXED_WEIGHT = "aten.convolution in the model (Net): the weight has a fixed size"
OTHER_AXIS = "varies along another dimension"
KEPT = {
    "logsumexp": (lambda m, x: x.logsumexp(1, keepdim=True), 1, "aten.logsumexp in the model (Net): over the channels"),
    "largest": (lambda m, x: x.amax(1, keepdim=True), 1, "aten.amax in the model (Net): over the channels"),
    "loss": (
        lambda m, x: F.mse_loss(x, x.tanh()).view(1, 1),
        1,
        "aten.mse_loss in the model (Net): over the channels",
    ),
    "softmax": (lambda m, x: x.softmax(1), 8, "aten._softmax in the model (Net): over the channels"),
    "running sum": (lambda m, x: x.cumsum(1), 8, "aten.cumsum in the model (Net): over the channels"),
    "a fixed matrix": (lambda m, x: x @ torch.eye(8)[:, :2], 2, "aten.mm in the model (Net): summed with a tensor"),
    "a fixed kernel": (lambda m, x: F.conv1d(x.unsqueeze(2), torch.eye(8).unsqueeze(2))[..., 0], 8, FIXED_WEIGHT),
    "a fixed kernel for each": (
        lambda m, x: F.conv1d(x.unsqueeze(2), torch.eye(8)[:, :1, None], groups=8)[..., 0],
        8,
        FIXED_WEIGHT,
    ),
    "distances to a fixed matrix": (
        lambda m, x: torch.cdist(x, torch.eye(8)),
        8,
        "aten._cdist_forward in the model (Net): compared with a tensor of fixed size",
    ),
    "neighbours": (
        lambda m, x: F.avg_pool1d(x.unsqueeze(1), 2).squeeze(1),
        4,
        "aten.avg_pool2d in the model (Net): varies along a pooled dimension",
    ),
    "between neighbours": (  # as many as before, each read at a place between two
        lambda m, x: F.interpolate(x.unsqueeze(1), scale_factor=1.1, mode="linear").squeeze(1),
        8,
        "aten.upsample_linear1d in the model (Net): varies along a pooled dimension",
    ),
    "every other": (lambda m, x: x.as_strided((4, 4), (8, 2)), 4, "strides of its own"),
    "another type": (lambda m, x: x.view(torch.int32).view(torch.float32), 8, "an empty tensor or another type"),
    "none at all": (
        lambda m, x: torch.cat([x, m.first(X[:0]).view(0, 4, 8)[:, 0]]),
        8,
        "an empty tensor or another type",
    ),
    "two kinds in one axis": (
        lambda m, x: (x.unsqueeze(1) * x.unsqueeze(2)).flatten(1),
        64,
        "merges two kinds of channels",
    ),
    "some by what is computed": (
        lambda m, x: x[:, m.scale.argsort()[:3]],
        3,
        "aten.index in the model (Net): chosen by an index",
    ),
    "some by an index": (
        lambda m, x: x.index_select(1, m.scale.argsort()[:3]),
        3,
        "aten.index_select in the model (Net): chosen by an index",
    ),
    "rows that become larger": (lambda m, x: F.pixel_shuffle(x[None, :, :, None], 2).flatten(2)[0], 32, OTHER_AXIS),
    "rows that become smaller": (lambda m, x: F.pixel_unshuffle(x[None, None], 2).flatten(2)[0], 8, OTHER_AXIS),
    "reflected": (lambda m, x: F.pad(x[None], (1, 1), mode="reflect")[0], 10, "padded along the channels"),
    "one by its number": (lambda m, x: x[:, 3:4], 1, "one channel is taken by its number"),
    "one by a list": (lambda m, x: x[:, [3]], 1, "one channel is taken by its number"),
    "one by a chosen index": (
        lambda m, x: x.index_select(1, torch.tensor([3])),
        1,
        "aten.index_select in the model (Net): one channel is taken by its number",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_channels_that_have_to_stay_are_told_why(name):
    function, width, reason = KEPT[name]
    found = class_of(Net(function, width), X)
    assert found.status == "frozen"
    assert reason in found.reason


def test_a_weight_that_mixes_its_dimensions_is_frozen():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.flat, self.last = nn.Conv2d(3, 4, 1), nn.Parameter(torch.randn(16)), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.last(F.conv2d(self.first(x), self.flat.view(4, 4, 1, 1)))

    classes = trace(Mixed(), torch.randn(2, 3, 5, 5)).classes()
    (found,) = [c for c in classes if c.uses[0][0] == "flat"]
    assert (found.status, found.size) == ("frozen", 16)
    assert "a weight that mixes its dimensions" in found.reason


WHOLE = {
    "linear": lambda m, x: x.relu(),
    "the larger of two": lambda m, x: torch.max(x, -x),
    "view": lambda m, x: x.reshape(len(x), -1, 1).flatten(1),
}


@pytest.mark.parametrize("function", WHOLE.values(), ids=WHOLE)
def test_operations_that_arrive_whole(function):
    dead = [(0, [1, 2, 6])]
    left, _ = left_after(Whole(function), (X,), first__weight=dead, first__bias=dead)
    assert left == {"first.weight": (5, 6), "first.bias": (5,), "second.weight": (3, 5), "second.bias": (3,)}


def test_a_norm_without_parameters_has_the_number_of_channels():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16), nn.Conv2d(16, 4, 3)).eval()
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        model[0].weight[:5], model[0].bias[:5] = 0, 0
        expected = model(x)
        thin(model, x)
        assert (model[0].out_channels, model[1].num_features, model[2].in_channels) == (11, 11, 11)
        torch.testing.assert_close(model(x), expected)


def test_the_statistics_of_a_norm_that_runs_in_training_only_shrink_along():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.side, self.norm, self.other = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            x = self.body(x).relu()
            return (self.head(x), self.other(self.norm(self.side(x)))) if self.training else self.head(x)

    graph = trace(Auxiliary(), torch.randn(2, 3, 8, 8))
    ids = graph.channels_of("side.weight")
    for name in ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        assert torch.equal(graph.channels_of(name), ids), name


MOVED = {
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "flip": lambda x: x.flip(3),
    "unfold and fold": lambda x: F.fold(F.unfold(x, 2, stride=2), x.shape[2:], 2, stride=2),
    "rows by an index": lambda x: x.index_select(2, torch.tensor([0, 2, 3])),
    "windows": lambda x: x.unfold(2, 2, 1).sum(-1),
    "strides": lambda x: x.as_strided(x.shape, x.stride()),
    "half of the rows times the sigmoid of the others": lambda x: F.glu(x, 2),
    "memory format": lambda x: x.contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("move", MOVED.values(), ids=MOVED)
def test_dead_channels_go_where_elements_move(move):
    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.second(move(self.first(x)))

    model, x = Images(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        model.first.weight[2:5], model.first.bias[2:5] = 0, 0
        expected = model(x)
        thin(model, x)
        assert len(model.first.weight) == 5
        torch.testing.assert_close(model(x), expected)
