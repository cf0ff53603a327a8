"""What shapes do not show: numbers computed from sizes, layers with several uses, buffers that are written to."""

import copy
import itertools
import math
import random
from collections import OrderedDict
from threading import Lock

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from potstill.thinning import ThinningError, thin, trace


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


class Larger(nn.Module):
    """Divides by the larger of two widths: removing from one alone changes nothing."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.a(x).relu()
        y = self.b(x).relu()
        return self.c(y / max(x.shape[1], y.shape[1]))


def test_of_channels_that_are_guilty_only_together_some_go():
    model, x = Larger(), torch.randn(4, 6)
    silenced(model.a, model.b)
    expected = model(x)
    recipe = thin(model, x)
    assert sorted((model.a.out_features, model.b.out_features)) == [6, 8]
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert sum("depend on the number" in kept.reason for kept in recipe.frozen) == 1


class Sorted(nn.Module):
    """Takes the best positions first: rounding in the seventh digit swaps neighbours."""

    def __init__(self):
        super().__init__()
        sizes = ((3, 16), (16, 64), (64, 16))
        self.body = nn.Sequential(*(m for i, o in sizes for m in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())))
        self.score, self.box = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.body(x)
        best = self.score(x).flatten(1).sigmoid().topk(1000)[1]
        return self.box(x).flatten(2).gather(2, best[:, None].expand(-1, 4, -1))


def test_rounding_that_a_sort_amplifies_is_no_other_function():
    torch.manual_seed(0)
    model, x = Sorted().eval(), torch.randn(2, 3, 64, 64)
    silenced(model.body[0], model.body[2])
    recipe = thin(model, x, tolerance=0.0)  # whatever this processor rounds to
    # 14 of 16, 62 of 64 and 16 channels, the scores and the boxes
    assert recipe.parameters[1] == 14 * 28 + 62 * (14 * 9 + 1) + 16 * (62 * 9 + 1) + 17 + 4 * 17
    assert recipe.max_relative_difference == 0 or "in double precision" in recipe.notes[-1]
    masked, thinned = (copy.deepcopy(model).double()(x.double()) for _ in range(2))
    assert torch.equal(masked, thinned)


class Detector(nn.Module):
    """Returns as many positions as score above the mean: sizes depend on the data."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.score, self.box = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.b(self.a(x).relu()).relu()
        score, box = self.score(x).flatten(), self.box(x).permute(0, 2, 3, 1).reshape(-1, 4)
        keep = score > score.mean()
        return score[keep], box[keep]


def test_sizes_that_depend_on_data_freeze_nothing():
    model, x = Detector().eval(), torch.randn(1, 3, 16, 16)
    silenced(model.a, model.b)
    expected = model(x)
    thin(model, x)
    assert (model.a.out_channels, model.b.out_channels) == (14, 14)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(model(x), expected, strict=True))


class Counter(nn.Module):
    """Computes something else at each call, from what it keeps and from chance."""

    def __init__(self, draw):
        super().__init__()
        self.a, self.b, self.draw, self.lock, self.calls = nn.Linear(6, 8), nn.Linear(8, 3), draw, Lock(), 0

    def forward(self, x):
        self.calls += 1
        return self.b(self.a(x).relu()) * (self.calls + self.draw())


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(()).item()])
def test_what_a_model_keeps_and_draws_is_the_same_at_each_comparison(draw):
    model, x = Counter(draw).eval(), torch.randn(4, 6)
    silenced(model.a)
    thin(model, x)
    assert model.a.out_features == 6
    assert model.calls == 0


def test_a_model_whose_outputs_are_never_the_same_is_refused():
    ticks = itertools.count()
    model, x = Counter(lambda: next(ticks)).eval(), torch.randn(4, 6)
    silenced(model.a)
    with pytest.raises(ThinningError, match="something else each time that it runs"):
        thin(model, x)
    assert model.a.out_features == 8


CACHE = {}


class Cached(nn.Module):
    """Keeps a tensor for each width outside of itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.a(x).relu()
        return self.b(x) * CACHE.setdefault(x.shape[1], torch.linspace(0.5, 1, 3, device=x.device))


def test_a_cache_that_the_trace_has_filled_is_named():
    model, x = Cached(), torch.randn(4, 6)
    model(x)
    with torch.no_grad():
        model.a.weight[0], model.a.bias[0] = 0, 0  # as many as the trace itself tries to remove
    with pytest.raises(ThinningError, match="keeps tensors outside of its modules"):
        thin(model, x)


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


class Keeping(nn.Module):
    """Two modules keep the same dict, empty so far, with an attribute of its own."""

    def __init__(self, kept):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.kept, self.a.kept = kept, kept

    def forward(self, x):
        self.a.kept["x"] = self.a(x).relu()
        return self.b(self.kept["x"]) * self.kept.scale


def test_what_modules_share_and_write_on_is_copied_as_it_is():
    kept = OrderedDict()
    kept.scale = 2.0
    model, x = Keeping(kept).eval(), torch.randn(4, 6)
    silenced(model.a)
    thin(model, x)
    assert model.a.out_features == 6
    assert not kept


class Halves(nn.Module):
    """Code that has a number of channels as a number of words, in a place that only real numbers reach."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.a(x)
        if y.device.type != "meta" and y.shape[-1] != 8:
            raise ValueError("eight are needed")
        return self.b(y)


def test_a_model_that_fails_without_channels_is_quoted():
    model = Halves()
    silenced(model.a)
    recipe = thin(model, torch.randn(2, 4))
    assert "(removing dead ones makes the model fail: ValueError: eight are needed)" in recipe.refused[0].reason
