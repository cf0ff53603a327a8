"""What a comparison of outputs alone would not see: results left elsewhere, states, other sizes, merged weights."""

import copy
import importlib.util
from collections import deque
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler
from potstill.thinning import ThinningError, load, save, thin

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two heads on one layer, three of whose units are dead."""

    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head, self.other = nn.Linear(6, 16), nn.Linear(16, 5), nn.Linear(16, 12)
        self.scale = scale
        with torch.no_grad():
            self.body.weight[3:6], self.body.bias[3:6] = 0, 0

    def features(self, x):
        return F.relu(self.body(x))


def gap(a, b):
    return float((a - b).abs().max() / a.abs().max())


class Attribute(Net):
    def forward(self, x):
        h = self.features(x)
        self.seen = self.other(h)
        return self.head(h)


class Listed(Net):
    def forward(self, x):
        h = self.features(x)
        self.seen = [{"deep": self.other(h)}]
        return self.head(h)


@pytest.mark.parametrize(("kind", "read"), [(Attribute, lambda m: m.seen), (Listed, lambda m: m.seen[0]["deep"])])
def test_results_left_in_attributes_stay(kind, read):
    model = kind().eval()
    masked = copy.deepcopy(model)
    thin(model, X)
    model(X), masked(X)
    assert model.body.out_features == 13
    torch.testing.assert_close(read(model), read(masked))


def test_results_left_in_an_argument_stay():
    class Argument(Net):
        def forward(self, x, found):
            h = self.features(x)
            found["other"] = self.other(h)
            return deque([self.head(h)])

    model = Argument().eval()
    masked, before, after = copy.deepcopy(model), {}, {}
    thin(model, (X, {}))
    torch.testing.assert_close(model(X, after)[0], masked(X, before)[0])
    torch.testing.assert_close(after["other"], before["other"])
    assert model.body.out_features == 13


@pytest.mark.parametrize("in_place", [False, True])
def test_a_state_that_is_zero_before_the_first_call_is_no_constant(in_place):
    class Stream(Net):
        def __init__(self):
            super().__init__()
            self.mix, self.out = nn.Linear(16, 8), nn.Linear(8, 5)
            self.register_buffer("state", torch.zeros(16))

        def forward(self, x):
            h = torch.tanh(self.body(x))
            y = self.head(h) + self.out(F.relu(self.mix(self.state * h)))
            if in_place:
                self.state.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
            else:
                self.state = 0.9 * self.state + 0.1 * h.detach().mean(0)
            return y

    model = Stream().eval()
    masked = copy.deepcopy(model)
    thin(model, X)
    for _ in range(3):
        torch.testing.assert_close(model(X), masked(X))


def test_padding_to_a_multiple_is_not_known_from_one_size():
    class Padding(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            h = self.one(x).sigmoid()
            return self.two(F.pad(h, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)))

    model = Padding().eval()
    with torch.no_grad():
        model.one.weight[:3], model.one.bias[:3] = 0, 0
    masked = copy.deepcopy(model)
    thin(model, torch.randn(1, 3, 16, 16))
    for size in (16, 15, 13):
        x = torch.randn(2, 3, size, size)
        torch.testing.assert_close(model(x), masked(x))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_a_bag_is_a_sum_of_several_or_of_none(mode):
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.bag, self.head = nn.EmbeddingBag(10, 8, mode=mode), nn.Linear(8, 3)

        def forward(self, words, offsets):
            return self.head(self.bag(words, offsets))

    model = Bags().eval()
    with torch.no_grad():
        model.bag.weight[:, :3] = 0.7
    masked = copy.deepcopy(model)
    words = torch.randint(10, (6,))
    thin(model, (words, torch.arange(6)))
    offsets = torch.tensor([0, 0, 4])  # the first is empty
    torch.testing.assert_close(model(words, offsets), masked(words, offsets))


def test_an_adapter_that_merges_itself_is_left_alone():
    class Adapted(nn.Linear):
        def __init__(self):
            super().__init__(6, 16)
            self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(16, 2))
            self.merged = False

        def train(self, mode=True):
            super().train(mode)
            if self.merged == mode:
                self.weight.data += (-1 if mode else 1) * (self.up @ self.down).data
                self.merged = not mode
            return self

        def forward(self, x):
            y = super().forward(x)
            return y if self.merged else y + x @ self.down.T @ self.up.T

    torch.manual_seed(0)
    model = nn.Sequential(Adapted(), nn.ReLU(), nn.Linear(16, 5))
    with torch.no_grad():
        model[0].weight[3:6], model[0].bias[3:6], model[0].up[3:6] = 0, 0, 0
    before, expected = model[0].weight.detach().clone(), model(X)
    thin(model, X)
    assert torch.equal(model[0].weight, before[[0, 1, 2, *range(6, 16)]])
    torch.testing.assert_close(model(X), expected)


def test_masks_admit_the_constants_that_were_folded():
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight[:3], model[0].bias[:3], model[2].bias[:] = 0, 0, 0
    masks = {"2.bias": torch.zeros(3), "2.weight": torch.ones(3, 8)}
    expected = model(X)
    assert thin(model, X, masks).folds
    with torch.no_grad():
        model[2].bias.mul_(masks["2.bias"])
    torch.testing.assert_close(model(X), expected)


class Divided(Net):
    """Divides by the number of units: whatever is removed changes the function."""

    def forward(self, x):
        h = self.features(x)
        return self.finish(self.head(h / h.shape[1]))

    def finish(self, y):
        return y


class Masked(Divided):
    def finish(self, y):
        return torch.cat([y, torch.full_like(y[:, :1], -1e9)], 1)


class Logarithm(Divided):
    def forward(self, x):
        return super().forward(x.log()), torch.full((len(x),), 2.0)


class Half(Divided):
    def __init__(self):
        super().__init__()
        self.extra = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))


@pytest.mark.parametrize("kind", [Masked, Logarithm, Half])
def test_a_change_of_the_function_is_seen(kind):
    model = kind().eval()
    thin(model, X.abs() + 0.1)
    assert model.body.out_features == 16


def test_outputs_that_are_zero_prove_nothing():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[2].weight.zero_(), model[2].bias.zero_()
    with pytest.raises(ThinningError, match="all outputs of the model are 0"):
        thin(model, X)
    assert model[0].out_features == 8


@dataclass
class Out:
    logits: torch.Tensor


@pytest.mark.parametrize(
    "how", [Out, lambda y: {"a": {"one": y * 0 + 1}, "b": y}, lambda y: (y.new_ones(1), float(y.sum()))]
)
def test_the_stored_loader_looks_at_all_outputs(tmp_path, how):
    class Returning(Net):
        def forward(self, x):
            return how(self.scale * self.head(self.features(x)))

    model = Returning().eval()
    path = save(model, thin(model, X), tmp_path / "small.safetensors")
    spec = importlib.util.spec_from_file_location("small", path.with_suffix(".py"))
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    alone.load(Returning())
    load(Returning(), path)
    with pytest.raises(RuntimeError, match="does not compute what it computed when stored"):
        alone.load(Returning(scale=3.0))


@pytest.mark.parametrize("mode", ["hard", "forward", "copy"])
def test_masks_of_a_schedule_admit_folded_constants_in_every_mode(mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scheduler = CompressionScheduler(model, X)
    rows, bias = torch.ones(8, 6), torch.ones(3)
    rows[:3], bias[1] = 0, 0
    for name, mask in {"0.weight": rows, "0.bias": rows[:, 0], "2.bias": bias}.items():
        scheduler.masks.set("p", name, mask.clone(), mode)
    expected = model.eval()(X)
    assert scheduler.thin(optimizer).folds
    for _ in range(2):
        torch.testing.assert_close(model(X), expected)
        model(X).sum().backward()
        scheduler.before_parameter_optimization(0, 0, 2, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, 0, 2, optimizer)
    torch.testing.assert_close(model(X), expected)
