"""Pruning channels now: the scores against formulas written out by hand, the targets, what is refused."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from potstill import prune_channels
from potstill.compression.channel_statistics import layer_scores
from potstill.compression.one_shot import score_channels
from potstill.compression.parts.channel_scores import Outputs, channel_scores, find_score
from potstill.thinning import ThinningError, count_macs, trace


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    ).double()  # fmt: skip


X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 3])


def losses(model):
    for part in (slice(0, 2), slice(2, 4)):
        yield F.cross_entropy(model(X[part]), Y[part])


def scores(name, model=None):
    model = model or network()
    return layer_scores(model, trace(model, X), find_score(name), losses)


def test_l1_and_l2_are_sums_over_a_filter():
    weight = network()[0].weight.detach()
    for i in range(8):
        values = weight[i].flatten().tolist()
        squares = sum(w * w for w in values)
        assert float(scores("l1")["0.weight"][i]) == pytest.approx(sum(map(abs, values)))
        assert float(scores("l2")["0.weight"][i]) == pytest.approx(squares)


def test_norms_and_readers_count_as_much_as_the_layer_that_makes_a_channel():
    model = network()
    graph = trace(model, X)
    channels = graph.channels_of("0.weight")
    found = score_channels(model, graph, "l1")[channels]
    maker = model[0].weight.detach().flatten(1).abs().sum(1)
    reader = model[3].weight.detach().transpose(0, 1).flatten(1).abs().sum(1)
    assert found.tolist() == pytest.approx(((maker + reader + model[1].weight.detach().abs()) / 3).tolist())


def test_bn_scale_is_of_the_norm_behind_and_other_layers_have_none():
    model = network()
    model[1].weight.data = torch.linspace(-1, 0.75, 8, dtype=torch.float64)
    found = scores("bn_scale", model)
    assert list(found) == ["0.weight"]
    assert found["0.weight"].tolist() == [abs(w) for w in model[1].weight.tolist()]


def test_fpgm_sums_distances_to_all_others():
    weight = network()[3].weight.detach().flatten(1)
    expected = [sum(math.dist(a.tolist(), b.tolist()) for b in weight) for a in weight]
    assert scores("fpgm")["3.weight"].tolist() == pytest.approx(expected)


def test_lamp_divides_by_what_is_no_smaller():
    squares = network()[3].weight.detach().flatten(1).square().sum(1).tolist()
    expected = [s / sum(other for other in squares if other >= s) for s in squares]
    assert scores("lamp")["3.weight"].tolist() == pytest.approx(expected)
    assert max(expected) == 1


def test_lamp_of_filters_of_zeros_is_0():
    outputs = Outputs(torch.tensor([[0.0], [3.0], [0.0]]))
    assert find_score("lamp").of(outputs).tolist() == [0, 1, 0]


def test_taylor_is_the_squared_sum_of_gradient_times_weight():
    model = network().eval()
    expected = torch.zeros(6, dtype=torch.float64)
    for loss in losses(model):
        model.zero_grad()
        loss.backward()
        for i in range(6):
            expected[i] += (model[3].weight.grad[i] * model[3].weight[i].detach()).sum() ** 2 / 2
    assert scores("taylor")["3.weight"].tolist() == pytest.approx(expected.tolist())


def test_hessian_is_exact_where_the_hessian_is_diagonal():
    """For a loss of sum(c w^2) the probes' z * (H z) are the diagonal 2c itself, whatever the signs."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    factors = torch.arange(12.0).reshape(4, 3)

    def quadratic(net):
        yield (factors * net[0].weight.square()).sum() + 0 * net[1].weight.square().sum()

    found = layer_scores(model, trace(model, torch.randn(1, 3)), find_score("hessian"), quadratic)
    expected = (factors * model[0].weight.detach().square()).sum(1)
    assert found["0.weight"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_activation_is_the_mean_absolute_output():
    model = network().eval()
    out = model[:4](X).abs()
    expected = torch.stack([out[:2].mean((0, 2, 3)), out[2:].mean((0, 2, 3))]).mean(0)
    assert scores("activation")["3.weight"].tolist() == pytest.approx(expected.tolist())


def test_random_follows_the_seed_of_torch():
    torch.manual_seed(3)
    model = network()
    graph = trace(model, X)
    torch.manual_seed(3)
    first = layer_scores(model, graph, find_score("random"), None)["0.weight"]
    torch.manual_seed(4)
    second = layer_scores(model, graph, find_score("random"), None)["0.weight"]
    torch.manual_seed(3)
    assert torch.equal(layer_scores(model, graph, find_score("random"), None)["0.weight"], first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("scope", ["global", "normalized", "layer"])
@pytest.mark.parametrize("name", sorted(channel_scores()))
def test_every_score_reaches_the_target_and_keeps_the_function(name, scope):
    model = network()
    before = sum(p.numel() for p in model.parameters())
    recipe = prune_channels(model, X, sparsity=0.3, score=name, scope=scope, losses=losses)
    after = sum(p.numel() for p in model.parameters())
    assert recipe.parameters == (before, after)
    assert 0.3 <= 1 - after / before < 0.5  # as few channels as reach it, of a network of 14
    assert model(X).shape == (4, 5)
    assert recipe.max_relative_difference < 1e-10


def test_what_goes_is_what_scores_lowest():
    model = network()
    model[0].weight.data[[2, 5]] *= 1e-3
    model[3].weight.data[:, [2, 5]] *= 1e-3
    model[1].weight.data[[2, 5]] *= 1e-3
    kept = copy.deepcopy(model)
    prune_channels(model, X, macs=0.85, score="l1", scope="global")
    left = [i for i in range(8) if i not in (2, 5)]
    assert torch.equal(model[0].weight, kept[0].weight[left])
    assert torch.equal(model[3].weight, kept[3].weight[:, left])


def test_multiply_adds_are_a_share_to_keep():
    model = network()
    dense = count_macs(model, X)
    prune_channels(model, X, macs=0.5)
    assert 0.3 < count_macs(model, X) / dense <= 0.5


def test_the_fewest_channels_that_reach_the_target_go():
    model = network()
    recipe = prune_channels(copy.deepcopy(model), X, sparsity=0.01)
    assert sum(size != new for c in recipe.tensors for size, new in zip(c.shape, c.new_shape, strict=True)) > 0
    assert sum(len(range(c.shape[0])) - c.new_shape[0] for c in recipe.tensors if c.name.endswith("weight")) in (1, 2)


def test_a_layer_scope_takes_the_same_share_of_each_layer():
    model = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3))
    model[0].weight.data *= 100
    prune_channels(model, torch.randn(2, 4), sparsity=0.6, scope="layer")
    assert model[0].out_features / 20 == pytest.approx(model[2].out_features / 40, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "exactly one of sparsity"),
        ({"sparsity": 0.5, "macs": 0.5}, "exactly one of sparsity"),
        ({"sparsity": 1.0}, "between 0 and 1, not 1.0"),
        ({"macs": float("nan")}, "between 0 and 1, not nan"),
        ({"sparsity": 0.99}, "99.00% of the parameters cannot be removed: with one channel left of each kind"),
        ({"sparsity": 0.5, "score": "l3"}, "no score 'l3': one of activation"),
        ({"sparsity": 0.5, "score": "taylor"}, "give losses, a function"),
        ({"sparsity": 0.5, "score": "taylor", "losses": lambda model: []}, "losses yields nothing"),
        ({"sparsity": 0.5, "scope": "all"}, "scope is global, normalized or layer"),
    ],
)
def test_what_is_refused_leaves_the_model_as_it_was(arguments, said):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=said):
        prune_channels(model, X, **arguments)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_removal_that_fails_leaves_the_model_as_it_was():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls = network(), 0

        def forward(self, x):
            return self.body(x) * torch.rand(())

    model = Moody()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ThinningError):
        prune_channels(Broken(model), X, sparsity=0.3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Broken(nn.Module):
    """Returns zeros: nothing can be compared."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 0 * self.inner.body(x)


def test_statistics_leave_modes_gradients_and_norms_alone():
    model = network()
    model[3].eval()
    before = copy.deepcopy(model.state_dict())
    scores("taylor", model)
    assert model.training and model[0].training and not model[3].training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_second_derivatives_that_torch_lacks_are_named():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardsigmoid(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(2, 3, 8, 8)

    def losses(model):
        yield model(x).square().mean()

    with pytest.raises(ValueError, match=r"(?s)hessian.*hardsigmoid.*'taylor'"):
        prune_channels(model, x, sparsity=0.5, score="hessian", losses=losses)
    with pytest.raises(ValueError, match="a function that runs the model"):
        prune_channels(model, x, sparsity=0.5, score="taylor", losses=[model(x).mean()])


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.core, self.out = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.core(x)[0])


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(2, 6, 8)), nn.Parameter(torch.randn(2, 8, 3))

    def forward(self, x):
        return torch.bmm(torch.matmul(x[None], self.up).relu(), self.down).sum(0)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.EmbeddingBag(10, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.table(x))


def weight_normed():
    return nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))


UNUSUAL = {
    "recurrent": (Recurrent, {"core.weight_ih_l0": 0, "core.weight_hh_l0": 0}, lambda: torch.randn(2, 5, 6)),
    "experts": (Experts, {"up": 2}, lambda: torch.randn(5, 6)),
    "table": (Words, {"table.weight": 1}, lambda: torch.randint(10, (4, 3))),
    "weight norm": (weight_normed, {"0.parametrizations.weight.original0": 0}, lambda: torch.randn(4, 6)),
}


@pytest.mark.parametrize("score", ["l1", "taylor"])
@pytest.mark.parametrize("kind", UNUSUAL)
def test_channels_that_no_common_layer_makes_are_ranked_by_what_makes_them(kind, score):
    torch.manual_seed(0)
    make, dims, inputs = UNUSUAL[kind]
    model, x = make(), inputs()
    size = 8
    with torch.no_grad():
        for name, dim in dims.items():
            weight = model.get_parameter(name)
            size = weight.shape[dim]
            units = [8 * gate + unit for gate in range(size // 8) for unit in (1, 4)]
            weight.index_fill_(dim, torch.tensor(units), 1e-9)
    prune_channels(model.eval(), x, sparsity=0.2, score=score, losses=lambda m: [m(x).square().mean()])
    for name, dim in dims.items():
        left = model.get_parameter(name)
        assert left.shape[dim] < size
        assert float(left.detach().movedim(dim, 0).flatten(1).abs().amax(1).min()) > 1e-6  # those two went first


def test_a_buffer_that_makes_channels_is_left_alone():
    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(16, 5), nn.Linear(5, 3)
            self.register_buffer("waves", torch.randn(6, 8))

        def forward(self, x):
            x = x @ self.waves
            return self.out(self.first(torch.cat([x.sin(), x.cos()], -1)).relu())

    model = Fourier()
    prune_channels(model, torch.randn(4, 6), sparsity=0.2)
    assert model.waves.shape == (6, 8) and model.first.out_features < 5
