"""ResNets for 32x32 images: three stages of 16, 32 and 64 channels (He et al. 2016, section 4.2).

Parameter names are Distiller's: `conv1`, `bn1`, `layer<1-3>.<block>.{conv1,bn1,conv2,bn2}`,
`layer<2,3>.0.downsample.{0,1}` and `fc`. The shortcut of a stage's first block is a 1x1 convolution with BatchNorm
(option B of the paper).
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import conv1x1, conv3x3, initialise_for_relu
from .registry import register_model

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + shortcut)


def _stage(blocks: int, in_channels: int, channels: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride=channels // in_channels)
    return nn.Sequential(first, *[BasicBlock(channels, channels, stride=1) for _ in range(blocks - 1)])


class ResNetCifar(nn.Module):
    """6 n + 2 layers, where n is `blocks_per_stage`; (N, in_channels, 32, 32) -> (N, num_classes)."""

    def __init__(self, blocks_per_stage: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        narrow, middle, wide = WIDTHS
        self.conv1 = conv3x3(in_channels, narrow)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks_per_stage, narrow, narrow)
        self.layer2 = _stage(blocks_per_stage, narrow, middle)
        self.layer3 = _stage(blocks_per_stage, middle, wide)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(wide, num_classes)
        initialise_for_relu(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


def _register(depth: int) -> None:
    @register_model(
        f"resnet{depth}_cifar",
        input_shape=(3, 32, 32),
        num_classes=10,
        description=f"ResNet of {depth} layers for 32x32 images, convolutional shortcuts",
    )
    def build(num_classes: int, in_channels: int) -> nn.Module:
        return ResNetCifar((depth - 2) // 6, num_classes, in_channels)


for _depth in (20, 32, 44, 56):
    _register(_depth)
