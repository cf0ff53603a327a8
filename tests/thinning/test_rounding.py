"""Outputs that rounding alone changes: a sort of equal scores is not held against the channels that went."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import ThinningError, thin, trace


class Sorted(nn.Module):
    """Scores that are equal but for rounding; which of them come first is what it returns."""

    def __init__(self):
        super().__init__()
        self.first, self.scores = nn.Linear(8, 24), nn.Linear(24, 64)

    def forward(self, x):
        scores = self.scores(self.first(x)).sum() * torch.arange(1, 65) / torch.arange(1, 65)
        return scores.argsort(descending=True).double()


@torch.no_grad()
def prepared(model):
    model.first.weight[[3, 4]] = 0
    model.first.bias[[3, 4]] = 0
    return model


def test_a_sort_of_equal_scores_does_not_keep_channels():
    recipe = thin(prepared(Sorted()), torch.randn(2, 8))
    assert {change.name: change.new_shape for change in recipe.tensors}["first.weight"] == (22, 8)


class Counted(Sorted):
    """Reads a width at run time, behind a sort that hides it from every comparison of outputs."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x):
        width, order = self.first.out_features, super().forward(x)
        if self.way == "constant":
            return order * torch.tensor(float(width))
        return {"number": order * width, "root": order / width**0.5}[self.way]


@pytest.mark.parametrize("way", ["number", "root", "constant"])
def test_a_sort_does_not_hide_that_the_function_is_another(way):
    model, x = prepared(Counted(way)), torch.randn(2, 8)
    recipe = thin(model, x)
    assert recipe.removes_nothing
    assert any("number or order of these channels" in kept.reason for kept in recipe.refused)


class Standardised(nn.Conv2d):
    """Standardises each of its filters."""

    def forward(self, x):
        flat = self.weight.reshape(1, len(self.weight), -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return self._conv_forward(x, weight, self.bias)


def test_filters_that_are_standardised_go_and_what_reads_them_is_told_as_inexact():
    x = torch.randn(2, 3, 7, 7)
    for reader, left in ((nn.Conv2d(8, 4, 3), 6), (Standardised(8, 4, 3), 8)):
        model = nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), reader)
        with torch.no_grad():
            model[0].weight[[1, 2]] = 0
            model[0].bias[[1, 2]] = 0
            before = model(x)
        assert trace(model, x).use("0.weight").role == "out"
        recipe = thin(model, x)
        torch.testing.assert_close(model(x), before)
        assert len(model[0].weight) == left
        reason = "in 2 (Standardised): standardises filters by their mean over the channels (allow_inexact=True"
        assert any(reason in kept.reason for kept in recipe.refused) == (left == 8)


class Cast(nn.Module):
    """Computes in single precision whatever it is given, as norms of language models do, and loses digits there."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 600)

    def forward(self, x):
        total = self.first(x).to(torch.float32).sum(-1, keepdim=True)
        return ((total + 40000) - torch.full((1,), 40000, dtype=torch.float32)).to(x.dtype)


def test_code_that_casts_to_single_precision_is_compared_in_double_all_the_same():
    model, zero = Cast(), torch.randperm(600)[:300]
    with torch.no_grad():
        model.first.weight[zero], model.first.bias[zero] = 0, 0
    recipe = thin(model, torch.randn(5000, 8))
    assert len(model.first.weight) == 300
    assert recipe.max_relative_difference > 1e-5  # or this shows nothing
    assert "amplifies rounding" in recipe.notes[0]
    assert torch.get_default_dtype() == torch.float32


class Sized(nn.Module):
    """Multiplies by a width in single precision alone, which double precision does not show."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 24), nn.Linear(24, 3)

    def forward(self, x):
        x = self.second(self.first(x))
        return x * self.first.out_features if x.dtype == torch.float32 else x


def test_double_precision_does_not_hide_that_the_function_is_another():
    model, x = prepared(Sized()), torch.randn(4, 8)
    wanted = model(x)
    with suppress(ThinningError):
        thin(model, x)
    assert torch.equal(model(x), wanted)
