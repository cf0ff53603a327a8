"""Normalisations: statistics over parts of a tensor, vectors of any layout, layers that arrive whole."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import load, save, thin

from .networks import Between, Networks, Whole, class_of, images, left_after, rand

LEFT = {
    # What is averaged stays; of the 8 channels in front 5 stay where that is allowed.
    "one_pixel": (8 * 28 + 16 + 8 * 4 + 4, 5 * 28 + 10 + 5 * 4 + 4),
    "rows_of_pixels": (8 * 28 + 2 * 8 * 16 + 8 * 4 + 4, 5 * 28 + 2 * 5 * 16 + 5 * 4 + 4),
}
model = Networks({}, untouched=set(LEFT), left=LEFT)


@model
def one_pixel():
    return (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.LayerNorm((8, 1, 1)), nn.Conv2d(8, 4, 1)),
        images(),
    )


@model
def rows_of_pixels():
    norm = nn.LayerNorm((8, 1, 16))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d((1, 16)), norm, nn.Conv2d(8, 4, 1)
    ), images()


@pytest.mark.parametrize("name", model)
def test_exact(name, thinned):
    model.check(name, thinned)


def test_groups_of_channels_of_two_axes_stay():
    found = class_of(Between(lambda m, x: F.group_norm(x.view(len(x), 4, 2), 2).flatten(1)), rand(4, 6))
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "varies within the image")


def test_a_root_mean_square_that_arrives_whole_makes_up_for_channels_that_go():
    model = Whole(lambda m, x: m.norm(x), parts={"norm": nn.RMSNorm(8, 0.3)})
    dead = [(0, [1, 2, 6])]
    left, recipe = left_after(model, (rand(4, 6),), (0.01 * rand(4, 6),), first__weight=dead, first__bias=dead)
    assert (left["first.weight"], left["norm.weight"], left["second.weight"]) == ((5, 6), (5,), (3, 5))
    assert "rescaled for means over fewer channels: norm.weight" in str(recipe)


class ResponseNorm(nn.Module):
    """Global response normalisation (ConvNeXt V2): channels compete by the norms of their images."""

    def __init__(self, channels, dim, eps):
        super().__init__()
        self.dim, self.over, self.eps = dim, tuple({1, 2, 3} - {dim}), eps
        self.weight, self.bias = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))

    def forward(self, x):
        shape = [-1 if dim == self.dim else 1 for dim in range(4)]
        norms = x.norm(dim=self.over, keepdim=True)
        ratio = norms / (norms.mean(self.dim, keepdim=True) + self.eps)
        return x + self.weight.view(shape) * (x * ratio) + self.bias.view(shape)


@pytest.mark.parametrize("eps", [1e-6, 1.0])
@pytest.mark.parametrize(("dim", "layer"), [(1, nn.Conv2d), (3, nn.Linear)])
def test_a_mean_of_norms_makes_up_for_channels_that_go(dim, layer, eps):
    torch.manual_seed(0)
    size = (1,) if layer is nn.Conv2d else ()
    norm = ResponseNorm(8, dim, eps)
    model = nn.Sequential(layer(6, 8, *size), nn.ReLU(), norm, layer(8, 5, *size)).double()
    x = torch.randn(2, *((6, 4, 4) if dim == 1 else (4, 4, 6)), dtype=torch.float64)
    with torch.no_grad():
        model[0].weight[[1, 4, 6]], model[0].bias[[1, 4, 6]] = 0, 0
        weight, before = norm.weight[[0, 2, 3, 5, 7]], model(x)
        thin(model, x)
        assert (model(x) - before).abs().max() <= 1e-12
    assert sum(parameter.numel() for parameter in model.parameters()) == 5 * 7 + 2 * 5 + 5 * 6
    torch.testing.assert_close(norm.weight.data, weight * 8 / 5)
    assert norm.eps == eps * 8 / 5


class Cosine(nn.Module):
    """The cosine of what a layer makes and each row of a parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.rows = nn.Linear(6, 8), nn.Parameter(rand(4, 8))

    def forward(self, x):
        return F.linear(F.normalize(self.first(x), dim=-1), F.normalize(self.rows, dim=-1))


def test_columns_of_zeros_do_not_count_in_the_norms_of_a_parameter():
    zero = {"first__weight": [(0, [1, 4])], "first__bias": [(0, [1, 4])]}
    left, _ = left_after(Cosine(), (rand(5, 6),), rows=[(1, [1, 4])], **zero)
    assert (left["first.weight"], left["rows"]) == ((6, 6), (4, 6))
    left, _ = left_after(Cosine(), (rand(5, 6),), rows=[(1, [1])], **zero)  # the others are part of the norms
    assert left["rows"] == (4, 7)


class NormOfHeads(nn.LayerNorm):
    """Normalises each head, and scales it by a vector of its own, as Chameleon's queries."""

    def __init__(self, heads, width):
        super().__init__((heads, width))
        self.normalized_shape = (width,)

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape) * self.weight + self.bias


class NormedHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.norm = nn.Linear(6, 8), NormOfHeads(2, 4)
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 3)

    def forward(self, x):
        heads = self.norm(self.heads(x).view(*x.shape[:-1], 2, 4)).flatten(-2)
        return self.down(torch.relu(self.up(heads)))


def test_a_norm_whose_weight_has_a_vector_for_each_head_keeps_its_own_size():
    left, _ = left_after(NormedHeads(), (rand(5, 6),), up__weight=[(0, [1, 2])], up__bias=[(0, [1, 2])])
    assert left["up.weight"] == (8, 8) and left["norm.weight"] == (2, 4)


class SharedNorms(nn.Module):
    """Two layers and the norms behind them, whose parameters are the same; each norm adds a number of its own."""

    def __init__(self, kind=nn.RMSNorm):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 8, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(kind(8, eps) for kind, eps in ((nn.RMSNorm, 0.3), (kind, 0.4)))
        self.layers[1].weight, self.norms[1].weight = self.layers[0].weight, self.norms[0].weight
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return sum(
            self.out(norm(layer(scale * x))) for scale, layer, norm in zip((1, 2), self.layers, self.norms, strict=True)
        )


class Squared(nn.RMSNorm):
    """Divides by the mean of squares, not by its root: of another power of the number of channels."""

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def test_of_norms_that_share_a_weight_each_makes_up_and_one_scales_it(tmp_path):
    model, x = SharedNorms(), torch.randn(4, 6)
    torch.nn.init.uniform_(model.norms[0].weight)
    dense, scale = copy.deepcopy(model), model.norms[0].weight[[0, 2, 5, 6, 7]].detach()
    left, recipe = left_after(model, (x,), layers__0__weight=[(0, [1, 3, 4])])
    assert (left["layers.0.weight"], left["out.weight"]) == ((5, 6), (3, 5))
    assert [norm.eps for norm in model.norms] == pytest.approx([0.3 * 8 / 5, 0.4 * 8 / 5])
    torch.testing.assert_close(model.norms[0].weight, scale * (8 / 5) ** 0.5)
    recipe.then(thin(model, x)).apply(dense)
    assert [norm.eps for norm in dense.norms] == [norm.eps for norm in model.norms]
    save(model, recipe, tmp_path / "thinned")
    torch.testing.assert_close(load(SharedNorms(), tmp_path / "thinned")(x), model(x))


def test_norms_of_other_powers_cannot_share_a_weight_that_makes_up():
    model = SharedNorms(Squared)
    left, recipe = left_after(model, (torch.randn(4, 6),), layers__0__weight=[(0, [1, 3, 4])])
    assert left["layers.0.weight"] == (8, 6)
    assert "a mean over the channels" in str(recipe.refused)
