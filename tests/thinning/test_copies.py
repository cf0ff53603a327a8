"""Copies of models have what `copy.deepcopy` makes; zero rows are those that a look at everything finds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from potstill.thinning import count_macs, resize_to, thin
from potstill.thinning.running.copies import meta_copy, renew_caches, shared_copy
from potstill.thinning.trace import analyse
from potstill.thinning.tracing.constants import zero_rows


class Noted(nn.Module):
    """Says how it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.copies = nn.Linear(3, 3), 0

    def __deepcopy__(self, memo):
        made = Noted()
        made.layer, made.copies = copy.deepcopy(self.layer, memo), self.copies + 1
        return made


class Stated(nn.Module):
    """Leaves an attribute out of its state, and makes it anew."""

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key != "lost"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.lost = "again"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.noted, self.stated = nn.Linear(3, 3), nn.LSTM(3, 3), Noted(), Stated()
        self.a.cache = self.b.cache = {}
        self.stated.lost = "first"
        self.names, self.sizes, self.parts = {"x"}, {"one": [1, 2]}, {"layer": self.a}
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.a.weight


@pytest.mark.parametrize("copier", [meta_copy, shared_copy])
def test_a_copy_is_a_deep_copy(copier):
    model = Model()
    made, wanted = copier(model), copy.deepcopy(model)
    assert str(made) == str(wanted) and made.state_dict().keys() == wanted.state_dict().keys()
    for (name, module), (_, other) in zip(made.named_modules(), wanted.named_modules(), strict=True):
        assert vars(module).keys() == vars(other).keys(), name
    assert made.a is not model.a and made.parts["layer"] is made.a and made.tied.weight is made.a.weight
    assert made.a.cache is made.b.cache is not model.a.cache
    assert made.noted.copies == 1 and made.stated.lost == "again"
    assert made.names == {"x"} and made.names is not model.names
    assert made.sizes == model.sizes and made.sizes["one"] is not model.sizes["one"]
    assert made.a._forward_hooks is not model.a._forward_hooks


class Keeping(nn.Module):
    """Keeps its last activation under a name of its own choice."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body, self.head, self.name = nn.Linear(4, 6), nn.Linear(6, 2), name
        with torch.no_grad():
            self.body.weight[2], self.body.bias[2] = 0, 0

    def forward(self, x):
        x = self.body(x).relu()
        setattr(self, self.name, [x])
        return self.head(x)


@pytest.mark.parametrize("name", ["seen", "_seen"])
def test_a_model_that_keeps_an_activation_of_a_run_with_gradients_is_thinned(name):
    model, x = Keeping(name), torch.randn(3, 4)
    wanted = model(x)
    assert not getattr(model, name)[0].is_leaf
    thin(model, x)
    torch.testing.assert_close(model(x), wanted)


@pytest.mark.parametrize("among", [None, torch.arange(40) % 2 == 0])
@pytest.mark.parametrize("columns", [None, torch.ones(90).bool(), torch.zeros(90).bool(), torch.arange(90) > 70])
def test_zero_rows_are_found_block_by_block(columns, among):
    weight = torch.ones(40, 90, 2)
    weight[:, :75] = 0  # nothing but the last columns tells these rows apart
    weight[3], weight[10, :, 1], weight[20] = 0, 0, 0
    wanted = (weight if columns is None else weight[:, columns]).flatten(1).eq(0).all(1)
    assert torch.equal(zero_rows(weight, columns, among), wanted if among is None else wanted & among)


class Steps(nn.Module):
    """Recurrent layers of all kinds and an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3, batch_first=True)
        self.gru, self.cell = nn.GRU(6, 4), nn.RNNCell(4, 8)
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x):
        x = self.cell(self.gru(self.lstm(x)[0])[0].flatten(0, 1))
        return self.attention(x, x, x)[0]


def test_a_trace_counts_the_multiply_adds_of_a_run():
    model, x = Steps(), torch.randn(2, 5, 4)
    assert analyse(model, x).log.macs == count_macs(model, x) > 1000


class Biased(nn.Module):
    """Keeps the table that it looks up for evaluation, and makes it anew when it trains, as LeViT does."""

    def __init__(self):
        super().__init__()
        self.heads, self.kept, self.calls = 4, {}, 0
        self.inner, self.out, self.table = nn.Linear(6, 32), nn.Linear(32, 3), nn.Parameter(torch.randn(4, 7))
        self.register_buffer("places", torch.arange(5))

    def train(self, mode=True):
        self.calls += 1
        if mode:
            self.kept = {}
        return super().train(mode)

    def biases(self, x):
        if self.training or x.device not in self.kept:
            found = self.table[:, self.places]
            self.kept = self.kept if self.training else {x.device: found}
            return found
        return self.kept[x.device]

    def forward(self, x):
        x = self.inner(x).view(len(x), -1, self.heads, 8).transpose(1, 2)
        return self.out((x + self.biases(x)[..., None]).relu().transpose(1, 2).flatten(2))


@pytest.mark.parametrize("training", [True, False])
def test_what_is_kept_for_evaluation_is_made_anew_when_weights_go(training):
    model, x = Biased().eval(), torch.randn(2, 5, 6)
    model(x)
    with torch.no_grad():
        model.inner.weight[:8], model.inner.bias[:8], model.table[0] = 0, 0, 0
    model.train(training)
    thin(model, x)
    assert (model.heads, model.table.shape, model.training) == (3, (3, 7), training)
    assert model.eval()(x).shape == (2, 5, 3)


def test_a_module_that_keeps_nothing_changes_no_mode():
    model = Biased().eval()
    calls = model.calls
    renew_caches(model)
    assert model.calls == calls


class Moody(Biased):
    """Does more when its mode changes."""

    def __init__(self, what):
        super().__init__()
        self.what, self.phase, self.made = what, "", torch.ones(1)

    def train(self, mode=True):
        if mode and self.what == "raises":
            raise RuntimeError("for inference only")
        before, self.phase = self.phase, "training" if mode else "evaluation"
        if self.what == "merges" and before not in ("", self.phase):
            self.merge(1 if mode else -1)
        self.made = None if mode else torch.ones(1)
        self.out.requires_grad_(not mode)
        return super().train(mode)

    def merge(self, sign):
        self.inner.weight.data.add_(sign)

    def forward(self, x):
        return super().forward(x) * self.made


@pytest.mark.parametrize("what", ["raises", "merges", ""])
def test_what_else_a_change_of_mode_does_is_not_done(what):
    model, x = Moody(what).eval(), torch.randn(2, 5, 6)
    with torch.no_grad():
        model.inner.weight[:8], model.inner.bias[:8], model.table[0] = 0, 0, 0
        wanted, calls = model(x), model.calls
        thin(model, x)
        assert (model.phase, model.calls, model.out.weight.requires_grad) == ("evaluation", calls, True)
        torch.testing.assert_close(model(x), wanted)
    assert len(model.table) == (4 if what == "raises" else 3)


class Clips(nn.Module):
    """Looks at values, and changes a weight while it trains."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.inner.weight.mul_(0.5)
        x = self.inner(x)
        return self.out(x.relu() if x.sum() > -1e9 else x)


def test_a_trace_in_training_changes_no_weight():
    model, x = Clips().eval(), torch.randn(2, 6)
    before = copy.deepcopy(model.state_dict())
    thin(model, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_that_is_resized_makes_its_tables_anew():
    model, thinned, x = Biased().eval(), Biased().eval(), torch.randn(2, 5, 6)
    with torch.no_grad():
        thinned.inner.weight[:8], thinned.inner.bias[:8], thinned.table[0] = 0, 0, 0
    thin(thinned, x)
    model(x)
    model.heads = 3
    resize_to(model, thinned.state_dict()).load_state_dict(thinned.state_dict())
    torch.testing.assert_close(model(x), thinned(x))
