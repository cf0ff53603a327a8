"""Small pieces that several networks share."""

from __future__ import annotations

from torch import nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias (a BatchNorm follows it) that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def initialise_for_relu(model: nn.Module, mode: str = "fan_out") -> nn.Module:
    """Draw all convolutions Kaiming-normal for ReLU (He et al. 2015), set biases to 0, and return `model`.

    Linear layers keep torch's default: none of the networks here has a ReLU after its last one.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
