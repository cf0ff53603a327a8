"""Kinds of convolutions, and what becomes of channels between them: each is thinned exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from .networks import Head, Networks, cbr, images

LEFT = {
    "kinds": (709,),
    "conv3d": (1047,),
    "shuffle": (6952,),
    "weightnorm": (6244,),
    "channels_as_images": (183,),
    "depthwise_makes_two": (294,),
    "transposed_depthwise_makes_two": (244,),
    "transposed_groups": (348,),
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


class Each(nn.Module):
    """One small filter for each channel by itself: the channels go through it as images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, bias=False)

    def forward(self, x):
        return self.conv(x.flatten(0, 1).unsqueeze(1)).squeeze(1).unflatten(0, (len(x), -1))


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
    return between(nn.ConvTranspose2d(8, 12, 2, 2, groups=4), nn.ReLU())


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
