"""The small GoogLeNet for 32x32 images: a stem, eight Inception blocks with two max-pools between, one Linear.

Module names, as schedules use them (each convolution has a bias and is followed by BatchNorm and ReLU)::

    stem.conv  stem.bn
    inception_blocks.<i>                i = 0 1 | 3 4 5 6 | 8 9; 2 and 7 are the max-pools
        .conv_1x1.conv   .conv_1x1.bn
        .conv_3x3.reduce_conv  .conv_3x3.reduce_bn  .conv_3x3.conv  .conv_3x3.bn
        .conv_5x5.reduce_conv  .conv_5x5.reduce_bn  .conv_5x5.conv  .conv_5x5.bn
        .max_pool.conv   .max_pool.bn
    classifier

so `inception_blocks.*.conv_3x3.*conv.weight` names both convolutions of every 3x3 branch.

Szegedy et al. 2015, "Going deeper with convolutions", reduced for CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import initialise_for_relu
from .registry import register_model


class Widths(NamedTuple):
    """Output channels of an Inception block's convolutions; `reduce_*` is the 1x1 in front of a larger kernel."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int


STEM_WIDTH = 64
POOL = None
LAYOUT: tuple[Widths | None, ...] = (
    Widths(16, 32, 32, 16, 8, 8),
    Widths(24, 32, 48, 16, 12, 12),
    POOL,
    Widths(24, 32, 48, 16, 12, 12),
    Widths(16, 32, 48, 16, 16, 16),
    Widths(16, 32, 48, 16, 16, 16),
    Widths(32, 32, 48, 16, 24, 24),
    POOL,
    Widths(32, 48, 64, 16, 16, 16),
    Widths(32, 48, 64, 16, 16, 16),
)


def _unit(in_channels: int, out_channels: int, kernel: int, prefix: str = "") -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        {
            f"{prefix}conv": nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
            f"{prefix}bn": nn.BatchNorm2d(out_channels),
            f"{prefix}relu": nn.ReLU(),
        }
    )


def _reduced(in_channels: int, reduced: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(_unit(in_channels, reduced, 1, "reduce_") | _unit(reduced, out_channels, kernel))


class InceptionBlock(nn.Module):
    """Four parallel branches over the same input, concatenated along the channels."""

    def __init__(self, in_channels: int, widths: Widths) -> None:
        super().__init__()
        self.conv_1x1 = nn.Sequential(_unit(in_channels, widths.one, 1))
        self.conv_3x3 = _reduced(in_channels, widths.reduce_three, widths.three, 3)
        self.conv_5x5 = _reduced(in_channels, widths.reduce_five, widths.five, 5)
        pool = OrderedDict[str, nn.Module](pool=nn.MaxPool2d(3, stride=1, padding=1))
        self.max_pool = nn.Sequential(pool | _unit(in_channels, widths.pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) -> (N, sum of the branches' widths, H, W)."""
        return torch.cat([self.conv_1x1(x), self.conv_3x3(x), self.conv_5x5(x), self.max_pool(x)], 1)


class GoogLeNetCifar(nn.Module):
    """See the module's docstring for the names; (N, in_channels, 32, 32) -> (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(_unit(in_channels, STEM_WIDTH, 3))
        blocks: list[nn.Module] = []
        width = STEM_WIDTH
        for widths in LAYOUT:
            if widths is POOL:
                blocks.append(nn.MaxPool2d(3, stride=2, padding=1))
            else:
                blocks.append(InceptionBlock(width, widths))
                width = widths.one + widths.three + widths.five + widths.pool
        self.inception_blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)
        initialise_for_relu(self, mode="fan_in")

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return self.classifier(self.pool(self.inception_blocks(self.stem(x))).flatten(1))


@register_model("googlenet_cifar", input_shape=(3, 32, 32), num_classes=10)
def googlenet_cifar(num_classes: int, in_channels: int) -> nn.Module:
    """The small GoogLeNet for 32x32 images: eight Inception blocks, 260,650 parameters."""
    return GoogLeNetCifar(num_classes, in_channels)
