"""The two small convolutional networks that Distiller's first examples and tests use.

`simplenet_cifar`: conv1 (6, 5x5), conv2 (16, 5x5), fc1 (120), fc2 (84), fc3, a LeNet-5 (LeCun et al. 1998) with ReLU
and max-pooling. `simplenet_mnist`: conv1 (20, 5x5), conv2 (50, 5x5), fc1 (500), fc2. Both need their own input size:
the first Linear follows a flatten.
"""

from __future__ import annotations

from torch import Tensor, nn

from .registry import register_model


class SimpleNetCifar(nn.Module):
    """(N, in_channels, 32, 32) -> (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.relu_conv1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.relu_conv2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.relu_fc1 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu_fc2 = nn.ReLU()
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        x = self.pool1(self.relu_conv1(self.conv1(x)))
        x = self.pool2(self.relu_conv2(self.conv2(x))).flatten(1)
        return self.fc3(self.relu_fc2(self.fc2(self.relu_fc1(self.fc1(x)))))


class SimpleNetMnist(nn.Module):
    """(N, in_channels, 28, 28) -> (N, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (logits) of a batch of images."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x))).flatten(1)
        return self.fc2(self.relu3(self.fc1(x)))


@register_model("simplenet_cifar", input_shape=(3, 32, 32), num_classes=10)
def simplenet_cifar(num_classes: int, in_channels: int) -> nn.Module:
    """LeNet-5 with ReLU and max-pooling for 32x32 images, 62,006 parameters."""
    return SimpleNetCifar(num_classes, in_channels)


@register_model("simplenet_mnist", input_shape=(1, 28, 28), num_classes=10)
def simplenet_mnist(num_classes: int, in_channels: int) -> nn.Module:
    """Two convolutions and two Linear layers for 28x28 images, 431,080 parameters."""
    return SimpleNetMnist(num_classes, in_channels)
