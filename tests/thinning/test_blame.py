"""What shapes do not show: numbers computed from sizes, layers with several uses, buffers that are written to."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from potstill.thinning import thin, trace


class Attention(nn.Module):
    """One head, whose scale is computed from the number of features."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2) / math.sqrt(self.q.out_features)
        return self.o(scores.softmax(-1) @ self.v(x))


class Twice(nn.Module):
    """A layer with two uses that read different constants."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.shared = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.shared(self.a(x).sigmoid()) + self.shared(self.b(x).exp())


class Observer(nn.Module):
    """Counts what it has seen, in eval mode too, and branches on data, so that it is traced with real numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)
        self.register_buffer("seen", torch.ones(()))

    def forward(self, x):
        self.seen += x.abs().mean()
        x = self.norm(self.a(x)) if self.training or x.sum() > -1e9 else x
        return self.b(x) * self.seen


def silenced(*layers):
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.parameters():
                tensor[:2] = 0


def test_channels_whose_number_is_used_are_frozen_by_name():
    model, x = Attention().eval(), torch.randn(2, 5, 6)
    silenced(model.q, model.k, model.v)
    expected = model(x)
    recipe = thin(model, x)
    assert (model.q.out_features, model.v.out_features) == (16, 10)
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert any("depend on the number" in kept.reason for kept in recipe.frozen if kept.use.startswith("q.weight"))


def test_constants_do_not_go_into_a_layer_with_several_uses():
    model, x = Twice(), torch.randn(2, 4)
    silenced(model.a, model.b)
    expected = model(x)
    recipe = thin(model, x)
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert any("goes into shared, which is used more than once" in kept.reason for kept in recipe.refused)


@pytest.mark.parametrize("step", [trace, thin])
def test_buffers_stay_as_they_are(step):
    model, x = Observer(), torch.randn(2, 3, 9, 9)
    silenced(model.a, model.norm)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    step(model, x)
    kept = slice(2, None) if step is thin else slice(None)
    assert torch.equal(model.seen, before["seen"])
    assert torch.equal(model.norm.running_mean, before["norm.running_mean"][kept])
    assert torch.equal(model.norm.num_batches_tracked, before["norm.num_batches_tracked"])


def test_weights_that_a_hook_computes_can_be_copied():
    """As `torch.nn.utils.prune` keeps them, after a forward pass with gradients."""
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), torch.randn(2, 3, 9, 9)
    prune.ln_structured(model[0], "weight", 0.25, n=1, dim=0)
    with torch.no_grad():
        model[0].bias[(model[0].weight == 0).flatten(1).all(1)] = 0
    expected = model(x)
    thin(model, x)
    assert model[0].weight_orig.shape[0] == 6
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_shared_copies_leave_the_model_alone():
    model = Observer()
    state = copy.deepcopy(model.state_dict())
    trace(model.train(), torch.randn(2, 3, 9, 9))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
