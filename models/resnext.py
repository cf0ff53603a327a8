"""ResNeXt-101 32x4d (Xie et al. 2017), with the parameter names that Distiller's schedule for it uses.

`features.{0,1}` is the first convolution and BatchNorm, `features.<4-7>.<block>.0` holds the two branches of a block:
`.0.0.{0,1}` reduction, `.0.0.{3,4}` grouped 3x3, `.0.{1,2}` expansion, and in each stage's first block `.1.{0,1}` the
convolutional shortcut. The Linear is `last_linear`.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import conv1x1, initialise_for_relu
from .registry import register_model

GROUPS = 32
STAGES = ((128, 256, 3, 1), (256, 512, 4, 2), (512, 1024, 23, 2), (1024, 2048, 3, 2))  # inner, outer, blocks, stride


class AddBranches(nn.Sequential):
    """Runs each child on the same input and adds the results."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both children, which must give the same shape."""
        first, second = self
        return first(x) + second(x)


def _block(in_channels: int, inner: int, outer: int, stride: int) -> nn.Sequential:
    grouped = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=GROUPS, bias=False)
    units = [conv1x1(in_channels, inner), nn.BatchNorm2d(inner), nn.ReLU(), grouped, nn.BatchNorm2d(inner), nn.ReLU()]
    main = nn.Sequential(nn.Sequential(*units), conv1x1(inner, outer), nn.BatchNorm2d(outer))
    shortcut: nn.Module = nn.Identity()
    if in_channels != outer:
        shortcut = nn.Sequential(conv1x1(in_channels, outer, stride), nn.BatchNorm2d(outer))
    return nn.Sequential(AddBranches(main, shortcut), nn.ReLU())


class ResNeXt(nn.Module):
    """(N, in_channels, 224, 224) -> (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        stem: list[nn.Module] = [nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers = [*stem, nn.MaxPool2d(3, 2, padding=1)]
        width = 64
        for inner, outer, count, stride in STAGES:
            first = _block(width, inner, outer, stride)
            layers.append(nn.Sequential(first, *[_block(outer, inner, outer, 1) for _ in range(count - 1)]))
            width = outer
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.last_linear = nn.Linear(width, num_classes)
        initialise_for_relu(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return self.last_linear(self.features(x).flatten(1))


@register_model("resnext101_32x4d", input_shape=(3, 224, 224), num_classes=1000)
def resnext101_32x4d(num_classes: int, in_channels: int) -> nn.Module:
    """ResNeXt-101, 32 groups of 4 channels."""
    return ResNeXt(num_classes, in_channels)
