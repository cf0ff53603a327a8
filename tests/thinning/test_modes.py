"""Code that runs in training only is found, however the model's code asks for the mode."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from potstill.thinning import channels_text, thin, trace
from potstill.thinning.running.copies import meta_copy
from potstill.thinning.tracing.training_mode import leaves_out, trains_otherwise

from .networks import left_after

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


class Base(nn.Module):
    """Two layers, and an auxiliary head on the first."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.aux = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, x):
        x = self.a(x).relu()
        return (self.b(x), self.aux(x)) if self.training else self.b(x)


class Inherited(Base):
    """The forward of a base class."""


def quietly(function):
    @functools.wraps(function)
    def wrapped(*args):
        return function(*args)

    return wrapped


class Decorated(Base):
    @quietly
    def forward(self, x):
        x = self.a(x).relu()
        return (self.b(x), self.aux(x)) if self.training else self.b(x)


def auxiliary(net, x):
    return net.aux(x) if net.training else x.new_zeros(1)


class Helped(Base):
    def forward(self, x):
        x = self.a(x).relu()
        return self.b(x), auxiliary(self, x)


class Overridden(Base):
    phase = "training"

    def train(self, mode=True):
        self.phase = "training" if mode else "evaluation"
        return super().train(mode)

    def forward(self, x):
        x = self.a(x).relu()
        return (self.b(x), self.aux(x)) if self.phase == "training" else self.b(x)


class WithGradients(Base):
    def forward(self, x):
        x = self.a(x).relu()
        return (self.b(x), self.aux(x)) if torch.is_grad_enabled() else self.b(x)


@pytest.mark.parametrize("kind", [Inherited, Decorated, Helped, Overridden, WithGradients])
def test_a_training_step_works_after_removal(kind):
    model = kind().eval()
    with torch.no_grad():
        model.a.weight[:5], model.a.bias[:5] = 0, 0
    thin(model, X)
    assert model.aux.in_features == 11
    sum(out.sum() for out in model.train()(X)).backward()
    assert model.aux.weight.grad.shape == (2, 11)


@pytest.mark.parametrize("drop", [nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()])
def test_the_noise_of_dropout_has_no_channels_of_its_own(drop):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.drop, self.b = nn.Conv2d(3, 8, 3), drop, nn.Conv2d(8, 4, 3)

        def forward(self, x):
            x = self.b(self.drop(self.a(x).relu()))
            return (x, x.mean()) if self.training else x

    assert "8         removable  a.weight[0]" in channels_text(trace(Net(), torch.randn(2, 3, 8, 8)))


@pytest.mark.parametrize("size", [(0,), (0, 3), (3, 0)])
def test_a_tensor_without_elements_that_is_not_used_does_no_harm(size):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model.register_buffer("table", torch.empty(size))  # filled later, by a method of its own
    assert "8         removable  0.weight[0]" in channels_text(trace(model, X))


class Narrow(nn.Module):
    """A branch of no features at all, as small models of a family have it."""

    def __init__(self, bias):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.squeeze, self.expand = nn.Linear(8, 0, bias=bias), nn.Linear(0, 3, bias=bias)

    def forward(self, x):
        x = self.a(x).relu()
        return self.b(x) + self.expand(self.squeeze(x).sigmoid())


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("bias", [True, False])
def test_layers_without_features_do_no_harm(bias):
    model = Narrow(bias).eval()
    with torch.no_grad():
        model.a.weight[:5], model.a.bias[:5] = 0, 0
        expected = model(X)
        thin(model, X)
        assert torch.allclose(model(X), expected, atol=1e-6)
    assert (model.a.out_features, model.b.in_features, model.squeeze.in_features) == (3, 3, 3)
    assert model.squeeze.weight.shape == (0, 3)
    model.train()(X).sum().backward()


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_parts_are_seen_and_nothing_is_compiled_for_it(whole):
    built = []

    def backend(graph, _):
        built.append(graph)
        return graph.forward

    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)]
    if whole:
        model = torch.compile(nn.Sequential(*layers), backend=backend)
    else:
        model = nn.Sequential(torch.compile(layers[0], backend=backend), *layers[1:])
    assert "8         removable" in channels_text(trace(model, X))
    assert not built


class Selected(nn.Module):
    """The same operations in both modes, of which each reads another's result."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.out(a if self.training else b)


class OtherWeights(Selected):
    """In training another layer's weights."""

    def forward(self, x):
        weight = self.b.weight if self.training else self.a.weight
        return self.out(torch.addmm(self.a.bias + 0 * self.b.bias, x, weight.t()))


@pytest.mark.parametrize("kind", [Selected, OtherWeights])
def test_what_training_reads_in_place_of_another_shrinks_along(kind):
    model, zero = kind(), [(0, [2, 5])]
    left, _ = left_after(model, (X,), a__weight=zero, a__bias=zero, b__weight=zero, b__bias=zero)
    assert left["a.weight"] == left["b.weight"] == (14, 6)
    assert model.train()(X).shape == (4, 3)


@pytest.mark.parametrize(
    ("model", "read", "left_out"),
    [
        (Base(), {"a.weight", "a.bias", "b.weight", "b.bias"}, True),
        (Base(), {name for name, _ in Base().named_parameters()}, False),
        (nn.Sequential(nn.Linear(6, 3), nn.Dropout()), {"0.weight"}, False),
    ],
)
def test_heads_that_evaluation_leaves_out_are_known_without_a_comparison(model, read, left_out):
    assert leaves_out(model, read) == left_out


class Two(nn.Module):
    """Two layers of one width, and much that code may do with what they make."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)
        self.drop, self.norm = nn.Dropout(), nn.BatchNorm1d(16)
        self.first, self.second = nn.Parameter(torch.ones(1, 16)), nn.Parameter(torch.ones(1, 16))
        self.kept = None


class Keeps(Two):
    def forward(self, x):
        a = self.a(x)
        self.kept = a if self.training else None
        return self.out(a)


class Returns(Two):
    def forward(self, x):
        a = self.a(x)
        return (self.out(a), a) if self.training else (self.out(a), self.out(a))


class GivesParameter(Two):
    def forward(self, x):
        return self.out(self.first if self.training else self.second) + self.out(self.a(x))


class DropsParameter(Two):
    def forward(self, x):
        return self.a(x) * self.drop(self.first if self.training else self.second)


class OtherNumber(Two):
    def forward(self, x):
        return self.out(self.a(x).view(-1, 2, 8).transpose(1, 2).reshape(-1, 16) * (2 if self.training else 3))


class OtherLine(Two):
    def forward(self, x):
        if self.training:
            return self.out(self.a(x).view(-1, 4, 4).flatten(1))
        return self.out(self.a(x).view(-1, 4, 4).flatten(1))


class NoiseOfFixedSize(Two):
    def forward(self, x):
        x = self.a(x)
        return self.out(x * torch.rand(1, 16) if self.training else x)


class Fails(Two):
    def forward(self, x):
        if self.training:
            raise RuntimeError("trained elsewhere")
        return self.out(self.a(x))


ALL = [Keeps, Returns, GivesParameter, DropsParameter, OtherNumber, OtherLine, NoiseOfFixedSize, Fails]


@pytest.mark.parametrize("kind", [*ALL, Base, Inherited, Decorated, Helped, Overridden, WithGradients, Selected])
def test_training_is_traced_where_it_does_something_else(kind):
    assert trains_otherwise(kind(), meta_copy, torch.cat((X, X)).to("meta"))


class DropsModules(Two):
    def forward(self, x):
        x = self.drop(self.a(x)) + self.b(x)
        return self.out(nn.functional.dropout(x.relu(), 0.2, self.training) + self.drop(x))


class DropsSamples(Two):
    def forward(self, x):
        a = self.a(x)
        if self.training:
            a = a * a.new_empty(len(x), 1).bernoulli_(0.8).div_(0.8)
        if self.training:
            return self.out(a * torch.rand(len(x), 1, device=x.device).floor_())
        return self.out(a)


class Normalizes(Two):
    def forward(self, x):
        norm = self.norm
        if self.training:
            norm.num_batches_tracked.add_(1)
        options = (norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training, 0.1)
        return self.out(norm(nn.functional.batch_norm(self.a(x), *options)).relu_())


@pytest.mark.parametrize("kind", [DropsModules, DropsSamples, Normalizes])
def test_noise_and_statistics_need_no_second_trace(kind):
    assert not trains_otherwise(kind(), meta_copy, torch.cat((X, X)).to("meta"))


class DropsUnits(Two):
    """Noise of the width that the code holds: `units` counts channels in training alone."""

    def __init__(self, make):
        super().__init__()
        self.units, self.make = 16, make

    def forward(self, x):
        a = self.a(x)
        return self.out(a * self.make(self, x, a) if self.training else a)


MADE = {
    "a number for each unit": lambda m, x, a: a.new_empty(m.units).bernoulli_(0.5),
    "turned": lambda m, x, a: a.new_empty(m.units, 1).bernoulli_(0.5).t(),
    "expanded": lambda m, x, a: a.new_empty(len(x), 1).bernoulli_(0.5).expand(-1, m.units),
    "repeated": lambda m, x, a: a.new_empty(len(x), 1).bernoulli_(0.5).repeat(1, m.units),
    "joined": lambda m, x, a: torch.cat([a.new_empty(len(x), 1).bernoulli_(0.5)] * m.units, 1),
    "like another": lambda m, x, a: torch.rand_like(m.b(x)),
}


@pytest.mark.parametrize("made", MADE)
def test_noise_that_has_channels_is_traced(made):
    model, zero = DropsUnits(MADE[made]), [(0, [2, 5])]
    left, _ = left_after(model, (X,), a__weight=zero, a__bias=zero, b__weight=zero, b__bias=zero)
    assert left["a.weight"] == ((16, 6) if made == "joined" else (14, 6))  # joined parts are no channels of one class
    assert model.train()(X).shape == (4, 3)


class Weighed(Two):
    """Drops rows of a weight in training."""

    def forward(self, x):
        weight = self.a.weight * torch.rand(16, 1, device=x.device) if self.training else self.a.weight
        return self.out(nn.functional.linear(x, weight, self.a.bias))


def shifted(module, x):
    return x + module.shift if module.training else x


class Hooked(Two):
    """A module of torch's in which other code runs: a hook, or a function in place of `forward`."""

    def __init__(self, hook):
        super().__init__()
        self.act = nn.ReLU()
        self.act.shift = nn.Parameter(torch.ones(1, 16))
        if hook:
            self.act.register_forward_pre_hook(lambda module, args: (shifted(module, args[0]),))
        else:
            self.act.forward = functools.partial(shifted, self.act)

    def forward(self, x):
        return self.out(self.act(self.a(x)))


@pytest.mark.parametrize("model", [Weighed(), Hooked(True), Hooked(False)])
def test_a_parameter_that_training_alone_reads_shrinks_along(model):
    with torch.no_grad():
        model.a.weight[[2, 5]], model.a.bias[[2, 5]] = 0, 0
    thin(model.eval(), X)
    assert model.train()(X).shape == (4, 3)


class NeedsGradients(Base):
    """Code that asks whether gradients are needed, or insists on them."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def forward(self, x):
        x = self.a(x).relu()
        return (self.b(x), self.aux(x)) if self.ask(self, x) else self.b(x)


ASKED = {
    "of what is computed": lambda m, x: x.requires_grad,
    "of a parameter": lambda m, x: m.training and m.a.weight.requires_grad,
    "kept": lambda m, x: m.training and x.retain_grad() is None,
    "hooked": lambda m, x: m.training and x.register_hook(lambda grad: grad) is not None,
}


@pytest.mark.parametrize("asked", ASKED)
def test_training_is_traced_with_gradients(asked):
    model = NeedsGradients(ASKED[asked]).eval()
    with torch.no_grad():
        model.a.weight[:5], model.a.bias[:5] = 0, 0
    recipe = thin(model, X)
    assert model.aux.in_features == 11 and not recipe.notes
    sum(out.sum() for out in model.train()(X)).backward()


def test_parameters_that_are_frozen_by_the_user_are_in_a_trace_too():
    model = NeedsGradients(ASKED["of a parameter"]).requires_grad_(False).eval()
    with torch.no_grad():
        model.a.weight[:5], model.a.bias[:5] = 0, 0
    thin(model, X)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.train()(X).shape == (4, 3)
