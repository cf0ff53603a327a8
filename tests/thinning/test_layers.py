"""Kinds of layers and habits of code: each is thinned exactly, or what stays is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import roi_align

from .networks import Head, Networks, cbr, images

SAID = {
    "hardview": ("aten.view in the model (Net): the thinned model fails",),
    "buffer_out": ("written into a tensor of fixed size",),
}
LEFT = {
    "inplace_size": (2598,),
    "padshort": (1798,),
    "hardview": (4046,),
    "flat": (2492,),
    "shared": (1265,),
    "dcout": (1677,),
    "branch": (2823,),
    "kinds": (709,),
    "conv3d": (1047,),
    "shuffle": (6952,),
    "act0": (440,),
    "buffer_out": (1520,),
    "weightnorm": (6244,),
    "prelu_shared": (1301,),
    "rrelu": (644,),
    "scale_and_shift_of_one_element": (646,),
    "instance_norm_affine": (664,),
    "tokens_of_an_image": (509,),
    "unpooling": (1554,),
    "depthwise_weight_is_a_view": (173,),
    "rois": (444,),
    "channels_as_images": (183,),
    "depthwise_makes_two": (294,),
    "transposed_depthwise_makes_two": (244,),
    "transposed_groups": (348,),
}
model = Networks(SAID, left=LEFT)


@dataclass
class Out:
    logits: torch.Tensor
    feat: torch.Tensor


@model
def inplace_size():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 6)
            self.c = cbr(16, 12)

        def forward(self, x):
            x = self.a(x)
            y = self.b(x)
            x = x.clone()
            x[:, : y.shape[1]] += y
            return self.c(x)

    return (Head(Net(), 12), images())


@model
def padshort():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 8)
            self.b = cbr(8, 16, 3, 2)

        def forward(self, x):
            x = self.a(x)
            return F.relu(self.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))

    return (Head(nn.Sequential(Net(), cbr(16, 12)), 12), images())


@model
def hardview():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 8)
            self.b = cbr(8, 16)
            self.f = nn.Linear(16 * 4 * 4, 20)
            self.g = nn.Linear(20, 5)

        def forward(self, x):
            x = F.adaptive_avg_pool2d(self.b(self.a(x)), 4)
            x = x.view(-1, 256)
            return self.g(F.relu(self.f(x)))

    return (Net(), images())


@model
def flat():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 8)
            self.b = cbr(8, 16)
            self.f = nn.Linear(16 * 3 * 5, 20)
            self.g = nn.Linear(20, 5)

        def forward(self, x):
            x = F.adaptive_avg_pool2d(self.b(self.a(x)), (3, 5))
            return self.g(F.relu(self.f(x.flatten(1))))

    return (Net(), images())


@model
def shared():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 16)
            self.f = nn.Linear(16, 5)

        def forward(self, x):
            x = self.a(x)
            x = self.b(self.b(x)) + x
            return self.f(x.mean((2, 3)))

    return (Net(), images())


@model
def dcout():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 12)
            self.f = nn.Linear(12, 5)

        def forward(self, x):
            x = self.a(x)
            y = self.b(x)
            return Out(self.f(y.mean((2, 3))), x)

    return (Net(), images())


@model
def branch():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 12)
            self.c = cbr(16, 12)
            self.f = nn.Linear(12, 5)

        def forward(self, x):
            x = self.a(x)
            y = self.b(x) if x.sum() > 0 else self.c(x)
            return self.f(y.mean((2, 3)))

    return (Net(), images())


@model
def kinds():
    return (
        nn.Sequential(
            nn.Conv1d(4, 16, 3),
            nn.BatchNorm1d(16),
            nn.PReLU(16),
            nn.ConvTranspose1d(16, 12, 4, 2),
            nn.InstanceNorm1d(12, affine=True),
            nn.ELU(),
            nn.Conv1d(12, 12, 3, groups=3),
            nn.LeakyReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(12, 8, 1, padding=0),
            nn.GLU(1),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        torch.randn(2, 4, 20),
    )


@model
def conv3d():
    return (
        nn.Sequential(
            nn.Conv3d(2, 12, 3, padding=1),
            nn.BatchNorm3d(12),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.ConvTranspose3d(12, 10, 2, 2),
            nn.GroupNorm(10, 10),
            nn.SiLU(),
            nn.Conv3d(10, 10, 3, groups=10),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(10, 3),
        ),
        torch.randn(2, 2, 6, 6, 6),
    )


@model
def shuffle():
    return (
        Head(
            nn.Sequential(
                cbr(3, 16),
                nn.Conv2d(16, 32, 1),
                nn.PixelShuffle(2),
                cbr(8, 12),
                nn.PixelUnshuffle(2),
                cbr(48, 16),
                nn.ChannelShuffle(4),
                cbr(16, 16, g=4),
                nn.Upsample(scale_factor=2),
                cbr(16, 12),
            ),
            12,
        ),
        images(),
    )


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
def buffer_out():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 8)
            self.b = cbr(3, 6)
            self.c = cbr(14, 12)

        def forward(self, x):
            o = torch.zeros(x.shape[0], 14, 16, 16)
            o[:, :8] = self.a(x)
            o[:, 8:] = self.b(x)
            return self.c(o)

    return (Head(Net(), 12), images())


@model
def weightnorm():
    return (
        nn.Sequential(
            weight_norm(nn.Conv2d(3, 16, 3)),
            nn.ReLU(),
            weight_norm(nn.Conv2d(16, 12, 3)),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 144, 4),
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
def tokens_of_an_image():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 16, 3), nn.Linear(16, 24), nn.Linear(24, 4)

        def forward(self, x):
            return self.b(self.a(self.conv(x).relu().flatten(2).transpose(1, 2)).relu())  # not contiguous

    return Net(), images()


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
def depthwise_weight_is_a_view():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)
            self.weight, self.bias = nn.Parameter(torch.randn(16, 4)), nn.Parameter(torch.randn(16))

        def forward(self, x):
            x = F.conv1d(self.a(x).mT, self.weight.unsqueeze(1), self.bias, groups=len(self.weight))
            return self.b(x.mT)

    return Net(), torch.randn(2, 6, 8)


@model
def rois():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3), nn.Linear(16 * 4, 4)

        def forward(self, x, boxes):
            return self.b(roi_align(self.a(x).relu(), [boxes], output_size=2).flatten(1))

    return Net(), (torch.randn(1, 3, 12, 12), torch.tensor([[1.0, 1.0, 7.0, 7.0], [2.0, 3.0, 9.0, 9.0]]))


def between(*layers: nn.Module):
    """Layers from 8 channels, of which 5 stay, to whatever they make, between two convolutions."""
    width = nn.Sequential(*layers)(torch.randn(1, 8, 6, 6)).shape[1]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *layers, nn.Conv2d(width, 4, 1)), images()


class Each(nn.Module):
    """One small filter for each channel by itself: the channels go through it as images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, bias=False)

    def forward(self, x):
        return self.conv(x.flatten(0, 1).unsqueeze(1)).squeeze(1).unflatten(0, (len(x), -1))


@model
def channels_as_images():
    return between(Each())


@model
def depthwise_makes_two():
    return between(nn.Conv2d(8, 16, 3, groups=8), nn.ReLU())


@model
def transposed_depthwise_makes_two():
    return between(nn.ConvTranspose2d(8, 16, 2, 2, groups=8), nn.ReLU())


@model
def transposed_groups():
    return between(nn.ConvTranspose2d(8, 12, 2, 2, groups=4), nn.ReLU())


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
