"""Kinds of convolutions, and what becomes of channels between them: each is thinned exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import DeformConv2d

from potstill.thinning import load, save, thin, trace

from .networks import Between, Head, Networks, cbr, class_of, images

LEFT = {
    "kinds": (709,),
    "conv3d": (1047,),
    "shuffle": (6952,),
    "weightnorm": (10 * (27 + 2) + 8 * (10 * 9 + 2) + 8 * 144 * 4 + 4,),
    "channels_as_images": (183,),
    "depthwise_makes_two": (294,),
    "transposed_depthwise_makes_two": (244,),
    "transposed_groups": (6 * 30 + 6 * 4 * 4 + 8 + 8 * 4 + 4,),
    "channels_shuffled": (6 * 30 + 6 * 4 + 4,),
    "single_filter": (5 * 30 + 5 * 9 + 1 + 4 + 4,),
    "depthwise_deformable": (5 * 30 + 5 * 10 + 5 * 4 + 4,),
    "deformable_in_two_halves": (6 * 30 + 5 * 6 * 9 + 5 + 5 * 4 + 4,),
    "resampled": (5 * 30 + 5 * 4 + 4,),
    "filters_of_ones": (5 * 30 + 5 * 4 + 4,),
    "ones_repeated": (5 * 30 + 5 * 4 + 4,),
    "learned_filter": (5 * 30 + 9 + 5 * 4 + 4,),
    "two_from_each": (5 * 30 + 10 * 4 + 4,),
    "transposed_weightnorm": (5 * 30 + 5 * 4 + 5 + 5 + 5 * 4 + 4,),
}
model = Networks({}, left=LEFT)


@model
def kinds():
    return (
        nn.Sequential(
            nn.Conv1d(4, 16, 3),
            nn.BatchNorm1d(16),
            nn.PReLU(16),
            nn.ConvTranspose1d(16, 12, 4, 2),
            nn.InstanceNorm1d(12, affine=True),
            nn.ELU(),
            nn.Conv1d(12, 12, 3, groups=3),
            nn.LeakyReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(12, 8, 1, padding=0),
            nn.GLU(1),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        torch.randn(2, 4, 20),
    )


@model
def conv3d():
    return (
        nn.Sequential(
            nn.Conv3d(2, 12, 3, padding=1),
            nn.BatchNorm3d(12),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.ConvTranspose3d(12, 10, 2, 2),
            nn.GroupNorm(10, 10),
            nn.SiLU(),
            nn.Conv3d(10, 10, 3, groups=10),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(10, 3),
        ),
        torch.randn(2, 2, 6, 6, 6),
    )


@model
def shuffle():
    return (
        Head(
            nn.Sequential(
                cbr(3, 16),
                nn.Conv2d(16, 32, 1),
                nn.PixelShuffle(2),
                cbr(8, 12),
                nn.PixelUnshuffle(2),
                cbr(48, 16),
                nn.ChannelShuffle(4),
                cbr(16, 16, g=4),
                nn.Upsample(scale_factor=2),
                cbr(16, 12),
            ),
            12,
        ),
        images(),
    )


@model
def weightnorm():
    return (
        nn.Sequential(
            weight_norm(nn.Conv2d(3, 16, 3)),
            nn.ReLU(),
            weight_norm(nn.Conv2d(16, 12, 3)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 144, 4),
        ),
        images(),
    )


def between(*layers: nn.Module):
    """Layers from 8 channels, of which 5 stay, to whatever they make, between two convolutions."""
    width = nn.Sequential(*layers)(torch.randn(1, 8, 6, 6)).shape[1]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *layers, nn.Conv2d(width, 4, 1)), images()


class Deformable(nn.Module):
    """A deformable convolution; with halves of the input that have offsets of their own."""

    def __init__(self, width, groups=1, halves=1):
        super().__init__()
        self.conv, self.halves = DeformConv2d(width, width, 3, padding=1, groups=groups), halves

    def forward(self, x):
        return self.conv(x, x.new_full((len(x), 18 * self.halves, *x.shape[2:]), 0.3))


class Each(nn.Module):
    """One small filter for each channel by itself: the channels go through it as images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, bias=False)

    def forward(self, x):
        return self.conv(x.flatten(0, 1).unsqueeze(1)).squeeze(1).unflatten(0, (len(x), -1))


class OneFilter(nn.Module):
    """A filter of one channel, made one for each channel in the forward pass."""

    def __init__(self, spread, convolve=F.conv2d, learned=False):
        super().__init__()
        kernel = torch.rand(1, 1, 3, 3)
        self.filter = nn.Parameter(kernel) if learned else nn.Buffer(kernel)
        self.spread, self.convolve = spread, convolve

    def forward(self, x):
        return self.convolve(x, self.spread(self.filter, x.shape[1]), groups=x.shape[1])


@model
def resampled():
    """A change of the sampling rate before and after a function (Karras et al. 2021), with one filter."""
    up = OneFilter(lambda kernel, count: kernel.double().float().expand(count, -1, -1, -1), F.conv_transpose2d)
    return between(up, nn.SiLU(), OneFilter(lambda kernel, count: kernel.repeat(count, 1, 1, 1)), nn.Hardswish())


@model
def filters_of_ones():
    return between(OneFilter(lambda _, count: torch.ones(count, 1, 3, 3) / 9))


@model
def ones_repeated():
    return between(OneFilter(lambda _, count: torch.ones(1, 1, 3, 3).repeat(count, 1, 1, 1).flip(-1) / 9))


@model
def learned_filter():
    return between(OneFilter(lambda kernel, count: kernel.expand(count, -1, -1, -1), learned=True))


@model
def two_from_each():
    return between(OneFilter(lambda kernel, count: kernel.repeat(2 * count, 1, 1, 1)))


@model
def transposed_weightnorm():
    return between(weight_norm(nn.ConvTranspose2d(8, 8, 2, 2, groups=8)))


@model
def channels_as_images():
    return between(Each())


@model
def depthwise_makes_two():
    return between(nn.Conv2d(8, 16, 3, groups=8), nn.ReLU())


@model
def transposed_depthwise_makes_two():
    return between(nn.ConvTranspose2d(8, 16, 2, 2, groups=8), nn.ReLU())


@model
def transposed_groups():
    """Of 4 inputs and of 6 outputs of each group 3 and 4 stay."""
    return between(nn.ConvTranspose2d(8, 12, 2, 2, groups=2), nn.ReLU())


@model
def channels_shuffled():
    """The same position of both groups goes together: of 4 one."""
    return between(nn.ChannelShuffle(2))


@model
def single_filter():
    return between(nn.Conv2d(8, 1, 3))


@model
def depthwise_deformable():
    return between(Deformable(8, groups=8))


@model
def deformable_in_two_halves():
    return between(Deformable(8, halves=2))


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)


@pytest.mark.parametrize(
    ("layer", "dim"),
    [
        (nn.Conv2d(4, 6, 1, groups=2), 1),
        (nn.Conv2d(4, 8, 1, groups=4), 0),
        (nn.ConvTranspose2d(4, 6, 1, groups=2), 0),
    ],
)
def test_what_reads_the_input_stays(layer, dim):
    found = class_of(
        nn.Sequential(layer, nn.Conv2d(layer.out_channels, 2, 1)), torch.randn(2, 4, 5, 5), "0.weight", dim
    )
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "reads an input of fixed size")


def test_filters_with_a_bias_of_fixed_size_stay():
    parts = {"kernel": nn.Parameter(torch.randn(5, 8, 1))}
    model = Between(lambda m, x: F.conv1d(x.unsqueeze(2), m.kernel, torch.arange(5.0)).flatten(1), 5, parts)
    found = class_of(model, torch.randn(4, 6), "kernel")
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "a bias of fixed size")


def test_the_outputs_of_each_channel_stay_as_many():
    found = class_of(*transposed_depthwise_makes_two(), "3.weight", 1)
    assert (found.status, found.reason.split(": ")[1]) == ("frozen", "the outputs of one group")


def test_a_mask_on_filters_covers_the_depthwise_layer_behind():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.each, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(3, 8, 1)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.last(self.each(self.one(x)) + self.other(x))

    graph = trace(Sum(), images())
    assert set(graph.coverage("one.weight", [2])) == {"one.weight", "one.bias", "each.weight", "each.bias"}


def test_a_mask_on_filters_covers_the_norm_behind_one_filter_for_all():
    blur = OneFilter(lambda kernel, count: kernel.expand(count, -1, -1, -1))
    graph = trace(nn.Sequential(nn.Conv2d(3, 8, 1), blur, nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)), images())
    assert set(graph.coverage("0.weight", [2])) == {"0.weight", "0.bias", "2.weight", "2.bias"}


class Words(nn.Module):
    """Convolutions over all channels of embedded words (Kim 2014): the channels are an axis of the image."""

    def __init__(self, width=10, filters=6, padding=0):
        super().__init__()
        self.words, self.out = nn.Embedding(20, width), nn.Linear(2 * filters, 3)
        self.convs = nn.ModuleList(nn.Conv2d(1, filters, (k, width), padding=(padding, 0)) for k in (2, 3))

    def forward(self, x):
        x = self.words(x).unsqueeze(1)
        return self.out(torch.cat([conv(x).relu().squeeze(3).amax(2) for conv in self.convs], 1))


@pytest.mark.parametrize("padding", [0, 1])
def test_a_kernel_over_all_channels_of_an_image_loses_columns(padding, tmp_path):
    model, x = Words(padding=padding).eval(), torch.randint(20, (2, 7))
    with torch.no_grad():
        model.words.weight[:, [1, 4, 8]] = 0
    before = model(x)
    recipe = thin(model, x)
    assert [conv.weight.shape[2:] for conv in model.convs] == [(2, 7), (3, 7)]
    assert [conv.kernel_size for conv in model.convs] == [(2, 7), (3, 7)]
    torch.testing.assert_close(model(x), before)
    again = load(Words(padding=padding), save(model, recipe, tmp_path / "small.safetensors")).eval()
    assert torch.equal(again(x), model(x)) and again.convs[1].kernel_size == (3, 7)


class Mixed(nn.Module):
    """A convolution with a kernel of one element over tokens (Liu et al. 2021): each channel is a place."""

    def __init__(self, kernel=1, batched=True):
        super().__init__()
        self.first, self.last, self.batched = nn.Linear(5, 8), nn.Linear(8, 3), batched
        self.tokens = nn.Conv1d(4, 4, kernel, padding=kernel // 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.tokens(x) if self.batched else torch.stack([self.tokens(one) for one in x]))


@pytest.mark.parametrize(("kernel", "batched", "left"), [(1, True, 6), (1, False, 6), (3, True, 8), (3, False, 8)])
def test_places_that_are_channels_go_where_the_kernel_mixes_none(kernel, batched, left):
    model, x = Mixed(kernel, batched), torch.randn(2, 4, 5)
    nn.init.zeros_(model.tokens.bias)
    with torch.no_grad():
        model.first.weight[:2], model.first.bias[:2] = 0, 0
    before = model(x)
    recipe = thin(model, x)
    assert model.last.in_features == left
    torch.testing.assert_close(model(x), before)
    if left == 8:
        assert any("varies within the image" in kept.reason for kept in recipe.frozen)
