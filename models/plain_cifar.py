"""The plain counterpart of ResNet-20 for 32x32 images: the same layers without shortcuts (He et al. 2016, section 4.2).

Parameter names: `conv1`, `bn1`, `layer<1-3>.<block>.{conv1,bn1,conv2,bn2}`, `fc`; the `_nobn` variant has no BatchNorm.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from .layers import conv3x3, initialise_for_relu
from .registry import register_model
from .resnet_cifar import WIDTHS


def _unit(number: str, in_channels: int, channels: int, stride: int, batch_norm: bool) -> OrderedDict[str, nn.Module]:
    unit: OrderedDict[str, nn.Module] = OrderedDict({f"conv{number}": conv3x3(in_channels, channels, stride)})
    if batch_norm:
        unit[f"bn{number}"] = nn.BatchNorm2d(channels)
    unit[f"relu{number}"] = nn.ReLU()
    return unit


def _block(in_channels: int, channels: int, stride: int, batch_norm: bool) -> nn.Sequential:
    first = _unit("1", in_channels, channels, stride, batch_norm)
    return nn.Sequential(first | _unit("2", channels, channels, 1, batch_norm))


class PlainCifar(nn.Sequential):
    """6 n + 2 layers in a row; (N, in_channels, 32, 32) -> (N, num_classes)."""

    def __init__(self, blocks_per_stage: int, num_classes: int, in_channels: int, batch_norm: bool = True) -> None:
        width = WIDTHS[0]
        layers = _unit("1", in_channels, width, 1, batch_norm)
        for number, channels in enumerate(WIDTHS, 1):
            blocks = [_block(width, channels, channels // width, batch_norm)]
            blocks += [_block(channels, channels, 1, batch_norm) for _ in range(blocks_per_stage - 1)]
            layers[f"layer{number}"] = nn.Sequential(*blocks)
            width = channels
        super().__init__(layers | {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
        self.fc = nn.Linear(width, num_classes)
        initialise_for_relu(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return super().forward(x)


@register_model("plain20_cifar", input_shape=(3, 32, 32), num_classes=10)
def plain20_cifar(num_classes: int, in_channels: int) -> nn.Module:
    """ResNet-20 for 32x32 images without its shortcuts."""
    return PlainCifar(3, num_classes, in_channels)


@register_model("plain20_cifar_nobn", input_shape=(3, 32, 32), num_classes=10)
def plain20_cifar_nobn(num_classes: int, in_channels: int) -> nn.Module:
    """ResNet-20 for 32x32 images without its shortcuts and without BatchNorm."""
    return PlainCifar(3, num_classes, in_channels, batch_norm=False)
