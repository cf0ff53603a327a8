"""VGG for 32x32 images: the convolutions of Simonyan and Zisserman 2015, one Linear instead of three.

Parameter names are those of torchvision's VGG for the convolutions (`features.<n>`) and `classifier` for the Linear.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import initialise_for_relu
from .registry import register_model

STAGE_WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGGCifar(nn.Module):
    """(N, in_channels, 32, 32) -> (N, num_classes); each of the five stages halves the image."""

    def __init__(self, depth: int, batch_norm: bool, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for channels, count in zip(STAGE_WIDTHS, CONVOLUTIONS[depth], strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(width, channels, 3, padding=1))
                layers += [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # nothing to do at 32x32; admits larger images
        self.classifier = nn.Linear(width, num_classes)
        initialise_for_relu(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _register(depth: int, batch_norm: bool) -> None:
    @register_model(
        f"vgg{depth}{'_bn' if batch_norm else ''}_cifar",
        input_shape=(3, 32, 32),
        num_classes=10,
        description=f"VGG-{depth} for 32x32 images, one Linear{', with BatchNorm' if batch_norm else ''}",
    )
    def build(num_classes: int, in_channels: int) -> nn.Module:
        return VGGCifar(depth, batch_norm, num_classes, in_channels)


for _depth in CONVOLUTIONS:
    _register(_depth, batch_norm=False)
    _register(_depth, batch_norm=True)
