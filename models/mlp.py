"""Multilayer perceptrons for 28x28 images, 784-16-32-24-10, plain and with BatchNorm and dropout.

All layers are children of `layers`, numbered in their order (`layers.1` is the first Linear). BatchNorm stands in
front of each Linear but the first, dropout behind the second hidden layer's ReLU.
"""

from __future__ import annotations

from torch import Tensor, nn

from .registry import register_model

PIXELS = 28 * 28
HIDDEN = (16, 32, 24)


class MLP(nn.Module):
    """(N, in_channels, 28, 28) -> (N, num_classes)."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, batch_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        width = in_channels * PIXELS
        for number, units in enumerate(HIDDEN):
            if batch_norm and number > 0:
                layers.append(nn.BatchNorm1d(width))
            layers += [nn.Linear(width, units), nn.ReLU()]
            if dropout and number == 1:
                layers.append(nn.Dropout(dropout))
            width = units
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        return self.layers(x)


@register_model("mlp", input_shape=(1, 28, 28), num_classes=10)
def mlp(num_classes: int, in_channels: int) -> nn.Module:
    """Multilayer perceptron 784-16-32-24-10 with ReLU."""
    return MLP(num_classes, in_channels)


@register_model("mlp_bn", input_shape=(1, 28, 28), num_classes=10)
def mlp_bn(num_classes: int, in_channels: int) -> nn.Module:
    """The multilayer perceptron with BatchNorm before each Linear but the first."""
    return MLP(num_classes, in_channels, batch_norm=True)


@register_model("mlp_bn_drop", input_shape=(1, 28, 28), num_classes=10)
def mlp_bn_drop(num_classes: int, in_channels: int) -> nn.Module:
    """The multilayer perceptron with BatchNorm, and dropout 0.2 behind the second hidden layer."""
    return MLP(num_classes, in_channels, batch_norm=True, dropout=0.2)
