"""Habits of code: sizes in the model's code, writes in place, branches, layers that are used twice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .networks import Head, Networks, cbr, images

SAID = {
    "hardview": ("aten.view in the model (Net): the thinned model fails",),
    "buffer_out": ("takes another path",),
}
LEFT = {
    "inplace_size": (2598,),
    "padshort": (1798,),
    "hardview": (4046,),
    "flat": (2492,),
    "shared": (1265,),
    "dcout": (1677,),
    "branch": (2823,),
    "buffer_out": (1520,),
    "tokens_of_an_image": (509,),
    "depthwise_weight_is_a_view": (173,),
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
def tokens_of_an_image():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 16, 3), nn.Linear(16, 24), nn.Linear(24, 4)

        def forward(self, x):
            return self.b(self.a(self.conv(x).relu().flatten(2).transpose(1, 2)).relu())  # not contiguous

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


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
