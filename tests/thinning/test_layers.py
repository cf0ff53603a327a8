"""Kinds of layers other than convolutions: each is thinned exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from .networks import Networks, images

LEFT = {
    "act0": (440,),
    "prelu_shared": (1301,),
    "rrelu": (644,),
    "scale_and_shift_of_one_element": (646,),
    "instance_norm_affine": (664,),
    "unpooling": (1554,),
    "rois": (444,),
    "resized_along_another_axis": (6 * 7 + 6 * 7 + 6 * 4 + 4,),
    "pooled_along_another_axis": (6 * 7 + 6 * 4 + 4,),
}
model = Networks({}, left=LEFT)


@model
def act0():
    return (
        nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.BatchNorm2d(16),
            nn.Sigmoid(),
            nn.Conv2d(16, 12, 1),
            nn.BatchNorm2d(12),
            nn.Softplus(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        ),
        images(),
    )


@model
def prelu_shared():
    act = nn.PReLU()  # one parameter for all channels
    return nn.Sequential(nn.Conv2d(3, 16, 3), act, nn.Conv2d(16, 12, 3, padding=1), act, nn.Conv2d(12, 4, 3)), images()


@model
def rrelu():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.RReLU(), nn.Conv2d(16, 4, 3)), images()


@model
def scale_and_shift_of_one_element():

    class Star(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x.relu() ** 2 + self.shift

    return nn.Sequential(nn.Conv2d(3, 16, 3), Star(), nn.Conv2d(16, 4, 3)), images()


@model
def instance_norm_affine():
    return (
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.InstanceNorm2d(16, affine=True),
            nn.ReLU(),
            nn.Conv2d(16, 4, 3, padding=1),
        ),
        images(),
    )


@model
def unpooling():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 16), (16, 16), (16, 4)))
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x):
            x, where = self.pool(self.a(x).relu())
            return self.c(self.unpool(self.b(x).relu(), where))

    return Net(), images()


@model
def resized_along_another_axis():
    """Positions for other lengths, the channels being the other axis of an image (Vasu et al. 2024)."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.places = nn.Linear(6, 10), nn.Linear(10, 4), nn.Parameter(torch.randn(1, 1, 7, 10))

        def forward(self, x):
            size = (x.shape[1], self.places.shape[3])
            return self.b(self.a(x) + F.interpolate(self.places, size, mode="bilinear")[0])

    return Net(), torch.randn(2, 5, 6)


@model
def pooled_along_another_axis():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.whole = nn.Linear(6, 10), nn.Linear(10, 4), nn.AdaptiveAvgPool2d((1, None))

        def forward(self, x):
            x = F.avg_pool2d(F.max_pool2d(self.a(x).unsqueeze(1), (3, 1), (1, 1)), (2, 1))
            return self.b(self.whole(x).flatten(1))

    return Net(), torch.randn(2, 8, 6)


@model
def rois():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3), nn.Linear(16 * 4, 4)

        def forward(self, x, boxes):
            return self.b(roi_align(self.a(x).relu(), [boxes], output_size=2).flatten(1))

    return Net(), (torch.randn(1, 3, 12, 12), torch.tensor([[1.0, 1.0, 7.0, 7.0], [2.0, 3.0, 9.0, 9.0]]))


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
