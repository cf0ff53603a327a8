"""AlexNet with BatchNorm, the variant that quantization papers train (Zhou et al. 2016, DoReFa-Net).

Parameter names are Distiller's: `features.{0,2,6,10,13}` are the convolutions (0 with a bias and no BatchNorm; 2, 10
and 13 in two groups), `features.{3,7,11,14}` their BatchNorms, `classifier.{0,3,6}` the Linears, `classifier.{1,4}`
their BatchNorms.
"""

from __future__ import annotations

from torch import Tensor, nn

from .layers import initialise_for_relu
from .registry import register_model


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-4)


def _hidden(in_features: int, features: int) -> list[nn.Module]:
    linear = nn.Linear(in_features, features, bias=False)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    return [linear, nn.BatchNorm1d(features, eps=1e-4), nn.ReLU()]


class AlexNetBN(nn.Module):
    """(N, in_channels, 224, 224) -> (N, num_classes)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 96, 12, stride=4),
            nn.ReLU(),
            nn.Conv2d(96, 256, 5, padding=2, groups=2, bias=False),
            _norm(256),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.ReLU(),
            nn.Conv2d(256, 384, 3, padding=1, bias=False),
            _norm(384),
            nn.MaxPool2d(3, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2, bias=False),
            _norm(384),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2, bias=False),
            _norm(256),
            nn.MaxPool2d(3, 2),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            *_hidden(256 * 6 * 6, 4096),
            *_hidden(4096, 4096),
            nn.Linear(4096, num_classes),
        )
        initialise_for_relu(self, mode="fan_in")

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return self.classifier(self.features(x).flatten(1))


@register_model("alexnet_bn", input_shape=(3, 224, 224), num_classes=1000)
def alexnet_bn(num_classes: int, in_channels: int) -> nn.Module:
    """AlexNet with BatchNorm and grouped convolutions."""
    return AlexNetBN(num_classes, in_channels)
