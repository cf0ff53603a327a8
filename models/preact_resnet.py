"""Pre-activation ResNets for 32x32 and 224x224 images (He et al. 2016, "Identity Mappings in Deep Residual Networks").

Parameter names are Distiller's. A basic block has `pre_bn`, `conv1`, `bn`, `conv2` and perhaps `downsample`, a
bottleneck `pre_bn`, `conv1`, `bn1`, `conv2`, `bn2`, `conv3`. Before the blocks comes `conv1` (at 224x224 also `bn1`),
after them `final_bn` and `fc`.

The CIFAR networks come in two kinds: shortcuts that pool and pad with zero channels (no parameters), and, with
`_conv_ds` in the name, a 1x1 convolution `layer<2,3>.0.downsample`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import conv1x1, conv3x3, initialise_for_relu
from .registry import register_model


def padding_shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Average-pool by the stride and fill up with zero channels on both sides (option A of the ResNet paper)."""
    before = (channels - in_channels) // 2
    after = channels - in_channels - before
    return nn.Sequential(nn.AvgPool2d(stride), nn.ConstantPad3d((0, 0, 0, 0, before, after), 0.0))


class PreactBlock(nn.Module):
    """Two 3x3 convolutions, each after its BatchNorm and ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, conv_shortcut: bool) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(in_channels)
        self.pre_relu = nn.ReLU()
        self._add_convolutions(in_channels, channels, stride)
        outer = channels * self.expansion
        self.conv_shortcut = conv_shortcut
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != outer:
            self.downsample = (conv1x1 if conv_shortcut else padding_shortcut)(in_channels, outer, stride)

    def _add_convolutions(self, in_channels: int, channels: int, stride: int) -> None:
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = conv3x3(channels, channels)

    def residual(self, activated: Tensor) -> Tensor:
        """Return the branch that is added to the shortcut."""
        return self.conv2(self.relu(self.bn(self.conv1(activated))))

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut: a convolutional one reads the activated input, others the raw one."""
        activated = self.pre_relu(self.pre_bn(x))
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(activated if self.conv_shortcut else x)
        return self.residual(activated) + shortcut


class PreactBottleneck(PreactBlock):
    """1x1, 3x3 and 1x1 convolutions, each after its BatchNorm and ReLU."""

    expansion = 4

    def _add_convolutions(self, in_channels: int, channels: int, stride: int) -> None:
        self.conv1 = conv1x1(in_channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(channels, channels * self.expansion)

    def residual(self, activated: Tensor) -> Tensor:
        """Return the branch that is added to the shortcut."""
        out = self.relu1(self.bn1(self.conv1(activated)))
        return self.conv3(self.relu2(self.bn2(self.conv2(out))))


class PreactResNet(nn.Module):
    """The stem's modules in order, the stages `layer1`, `layer2`, ..., `final_bn`, average pooling and `fc`.

    (N, in_channels, H, W) -> (N, num_classes). The stages have `width`, 2 `width`, 4 `width` ... channels (times the
    block's expansion); each but the first halves the image.
    """

    def __init__(
        self, stem: dict[str, nn.Module], stages: Sequence[nn.Sequential], channels: int, num_classes: int
    ) -> None:
        super().__init__()
        body = stem | {f"layer{number}": stage for number, stage in enumerate(stages, 1)}
        for name, module in body.items():
            self.add_module(name, module)
        self.body = tuple(body)
        self.final_bn = nn.BatchNorm2d(channels)
        self.final_relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        initialise_for_relu(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        for name in self.body:
            x = self.get_submodule(name)(x)
        return self.fc(self.avgpool(self.final_relu(self.final_bn(x))).flatten(1))


def _stages(
    block: type[PreactBlock], depths: Sequence[int], width: int, conv_shortcut: bool
) -> tuple[list[nn.Sequential], int]:
    """Return the stages and the channels of the last one's output."""
    stages = []
    in_channels = width
    for number, depth in enumerate(depths):
        blocks = []
        for i in range(depth):
            stride = 2 if number > 0 and i == 0 else 1
            blocks.append(block(in_channels, width * 2**number, stride, conv_shortcut))
            in_channels = width * 2**number * block.expansion
        stages.append(nn.Sequential(*blocks))
    return stages, in_channels


def preact_resnet_cifar(depth: int, num_classes: int, in_channels: int, conv_shortcut: bool) -> PreactResNet:
    """Return a network of `depth` = 6 n + 2 layers for 32x32 images."""
    stem: dict[str, nn.Module] = {"conv1": conv3x3(in_channels, 16)}
    return PreactResNet(stem, *_stages(PreactBlock, [(depth - 2) // 6] * 3, 16, conv_shortcut), num_classes)


def preact_resnet_imagenet(
    block: type[PreactBlock], depths: Sequence[int], num_classes: int, in_channels: int
) -> PreactResNet:
    """Return a network for 224x224 images."""
    stem: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu1": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, 2, padding=1),
    }
    return PreactResNet(stem, *_stages(block, depths, 64, conv_shortcut=True), num_classes)


def _register_cifar(depth: int, conv_shortcut: bool) -> None:
    @register_model(
        f"preact_resnet{depth}_cifar{'_conv_ds' if conv_shortcut else ''}",
        input_shape=(3, 32, 32),
        num_classes=10,
        description=f"pre-activation ResNet-{depth} for 32x32 images, "
        f"{'convolutional' if conv_shortcut else 'zero-padded'} shortcuts",
    )
    def build(num_classes: int, in_channels: int) -> nn.Module:
        return preact_resnet_cifar(depth, num_classes, in_channels, conv_shortcut)


def _register_imagenet(depth: int, block: type[PreactBlock], depths: Sequence[int]) -> None:
    @register_model(
        f"preact_resnet{depth}",
        input_shape=(3, 224, 224),
        num_classes=1000,
        description=f"pre-activation ResNet-{depth} for 224x224 images",
    )
    def build(num_classes: int, in_channels: int) -> nn.Module:
        return preact_resnet_imagenet(block, depths, num_classes, in_channels)


for _depth in (20, 32, 44, 56, 110):
    _register_cifar(_depth, conv_shortcut=False)
    _register_cifar(_depth, conv_shortcut=True)
_register_imagenet(18, PreactBlock, (2, 2, 2, 2))
_register_imagenet(34, PreactBlock, (3, 4, 6, 3))
_register_imagenet(50, PreactBottleneck, (3, 4, 6, 3))
_register_imagenet(101, PreactBottleneck, (3, 4, 23, 3))
_register_imagenet(152, PreactBottleneck, (3, 8, 36, 3))
