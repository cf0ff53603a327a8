"""MobileNet v1: depthwise-separable convolutions (Howard et al. 2017), at width multipliers 1, 0.75, 0.5 and 0.25.

Parameter names are Distiller's: `model.0.{0,1}` is the first convolution and its BatchNorm; `model.<1-13>.{0,1}` are a
depthwise 3x3 convolution and its BatchNorm, `.{3,4}` the pointwise convolution and its BatchNorm; then `fc`.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import initialise_for_relu
from .registry import register_model

FIRST_WIDTH = 32
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
LEAST_WIDTH = 8


def _unit(in_channels: int, channels: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU()]


def _separable(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    depthwise = _unit(in_channels, in_channels, 3, stride, groups=in_channels)
    return nn.Sequential(*depthwise, *_unit(in_channels, channels, 1, 1))


class MobileNet(nn.Module):
    """(N, in_channels, 224, 224) -> (N, num_classes); `multiplier` scales every width, down to 8 channels at least."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, multiplier: float = 1.0) -> None:
        super().__init__()
        width = max(int(FIRST_WIDTH * multiplier), LEAST_WIDTH)
        layers = [nn.Sequential(*_unit(in_channels, width, 3, 2))]
        for base, stride in BLOCKS:
            channels = max(int(base * multiplier), LEAST_WIDTH)
            layers.append(_separable(width, channels, stride))
            width = channels
        self.model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(width, num_classes)
        initialise_for_relu(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return self.fc(self.model(x).flatten(1))


def _register(name: str, multiplier: float) -> None:
    @register_model(
        name,
        input_shape=(3, 224, 224),
        num_classes=1000,
        description=f"MobileNet v1, width multiplier {multiplier:g}",
    )
    def build(num_classes: int, in_channels: int) -> nn.Module:
        return MobileNet(num_classes, in_channels, multiplier)


for _name, _multiplier in {
    "mobilenet": 1.0,
    "mobilenet_075": 0.75,
    "mobilenet_050": 0.5,
    "mobilenet_025": 0.25,
}.items():
    _register(_name, _multiplier)
