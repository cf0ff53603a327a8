"""Kinds of layers and habits of code: each is thinned exactly, or what stays is named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from .networks import Head, Networks, cbr, images

SAID = {
    "hardview": ("aten.view in the model (Net): the thinned model fails",),
    "buffer_out": ("written into a tensor of fixed size",),
}
model = Networks(SAID)


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


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
