"""Building blocks of public vision networks: each is thinned exactly, or what stays is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .networks import Head, Networks, cbr, images

SAID = {
    "cbam": ("aten.max in body.2 (SA): over the channels",),
    "channelwise": ("aten.convolution in body.2.conv (Conv3d): varies within the image",),
    "inplace_slice": ("a size is fixed in the model",),
}
LEFT = {
    "se": (1903,),
    "eca": (2817,),
    "cbam": (4211,),
    "res2net": (1490,),
    "sknet": (5445,),
    "mixnet": (790,),
    "mixuneven": (871,),
    "ghost": (1188,),
    "hrnet": (9039,),
    "dpn": (4930,),
    "poolformer": (3980, 2513),
    "unet": (12179,),
    "fpn": (2648,),
    "c2f": (8430,),
    "inplace_slice": (2598,),
    "channelwise": (2690,),
}
model = Networks(SAID, left=LEFT)


@model
def se():

    class SE(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a = nn.Linear(c, c // 4)
            self.b = nn.Linear(c // 4, c)

        def forward(self, x):
            w = x.mean((2, 3))
            w = torch.sigmoid(self.b(F.relu(self.a(w))))
            return x * w[:, :, None, None]

    return (Head(nn.Sequential(cbr(3, 16), SE(16), cbr(16, 24)), 24), images())


@model
def eca():

    class ECA(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, x):
            y = x.mean((2, 3))
            y = self.conv(y.unsqueeze(1)).squeeze(1).sigmoid()
            return x * y[:, :, None, None]

    return (Head(nn.Sequential(cbr(3, 16), ECA(), cbr(16, 24)), 24), images())


@model
def cbam():

    class SA(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 1, 7, padding=3)

        def forward(self, x):
            y = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
            return x * torch.sigmoid(self.conv(y))

    return (Head(nn.Sequential(cbr(3, 16), cbr(16, 16), SA(), cbr(16, 24)), 24), images())


@model
def res2net():

    class R(nn.Module):
        def __init__(self, c, scale=4):
            super().__init__()
            self.width = c // scale
            self.scale = scale
            self.conv1 = cbr(c, c, 1)
            self.convs = nn.ModuleList([cbr(self.width, self.width) for _ in range(scale - 1)])
            self.conv3 = cbr(c, c, 1)

        def forward(self, x):
            o = self.conv1(x)
            sp = torch.split(o, self.width, 1)
            out = []
            t = torch.zeros_like(sp[0])
            for part, c in zip(sp, self.convs, strict=False):
                t = c(t + part)
                out.append(t)
            out.append(sp[-1])
            return self.conv3(torch.cat(out, 1)) + x

    return (Head(nn.Sequential(cbr(3, 16), R(16), R(16)), 16), images())


@model
def sknet():

    class SK(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a = cbr(c, c, 3)
            self.b = cbr(c, c, 5)
            self.f = nn.Conv2d(c, 8, 1)
            self.g = nn.Conv2d(8, 2 * c, 1)

        def forward(self, x):
            ys = torch.stack([self.a(x), self.b(x)], 1)
            w = ys.sum(1).mean((2, 3), keepdim=True)
            w = self.g(F.relu(self.f(w)))
            B, C, H, W = w.shape
            w = w.view(B, 2, C // 2, H, W).softmax(1)
            return (ys * w).sum(1)

    return (Head(nn.Sequential(cbr(3, 16), SK(16), cbr(16, 24)), 24), images())


class Mix(nn.Module):
    """Two kernel sizes, each on its own part of the channels."""

    def __init__(self, first, c):
        super().__init__()
        self.splits = [first, c - first]
        self.convs = nn.ModuleList(
            [nn.Conv2d(n, n, k, padding=k // 2, groups=n) for n, k in zip(self.splits, (3, 5), strict=False)]
        )

    def forward(self, x):
        return torch.cat([c(p) for c, p in zip(self.convs, torch.split(x, self.splits, 1), strict=False)], 1)


def mixed(first):
    body = nn.Sequential(cbr(3, 20), Mix(first, 20), nn.BatchNorm2d(20), nn.ReLU(), cbr(20, 12, 1))
    return (Head(body, 12), images())


@model
def mixnet():
    return mixed(10)


@model
def mixuneven():
    return mixed(7)


@model
def ghost():

    class G(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.o = o
            n = (o + 1) // 2
            self.p = cbr(i, n, 1)
            self.c = cbr(n, n, 3, g=n)

        def forward(self, x):
            a = self.p(x)
            b = self.c(a)
            return torch.cat([a, b], 1)[:, : self.o]

    return (Head(nn.Sequential(G(3, 16), G(16, 20), cbr(20, 12)), 12), images())


@model
def hrnet():

    class H(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 24, 3, 2)
            self.a2 = cbr(16, 16)
            self.b2 = cbr(24, 24)
            self.up = nn.Conv2d(24, 16, 1)
            self.dn = cbr(16, 24, 3, 2)
            self.o = cbr(40, 20)

        def forward(self, x):
            a = self.a(x)
            b = self.b(a)
            a, b = (self.a2(a), self.b2(b))
            a2 = F.relu(a + F.interpolate(self.up(b), size=a.shape[2:], mode="bilinear"))
            b2 = F.relu(b + self.dn(a))
            return self.o(torch.cat([a2, F.interpolate(b2, scale_factor=2)], 1))

    return (Head(H(), 20), images())


@model
def dpn():

    class D(nn.Module):
        def __init__(self, i, n, inc):
            super().__init__()
            self.n = n
            self.c = cbr(i, n + inc)

        def forward(self, x):
            a, b = x if isinstance(x, tuple) else (x[:, : self.n], x[:, self.n :])
            y = self.c(torch.cat([a, b], 1))
            return (a + y[:, : self.n], torch.cat([b, y[:, self.n :]], 1))

    class C(nn.Module):
        def forward(self, x):
            return torch.cat(x, 1)

    return (Head(nn.Sequential(cbr(3, 20), D(20, 16, 4), D(24, 16, 4), C(), cbr(28, 10)), 10), images())


@model
def poolformer():

    class P(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.n = nn.GroupNorm(1, c)
            self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            self.g = nn.Parameter(torch.ones(c) * 0.1)
            self.m = nn.Sequential(nn.Conv2d(c, 48, 1), nn.GELU(), nn.Conv2d(48, c, 1))

        def forward(self, x):
            y = self.n(x)
            x = x + self.g[:, None, None] * (self.pool(y) - y)
            return x + self.m(x)

    return (Head(nn.Sequential(cbr(3, 24), P(24), P(24)), 24), images())


@model
def unet():

    class UN(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 24)
            self.c = cbr(24, 32)
            self.u1 = nn.ConvTranspose2d(32, 24, 2, 2)
            self.d1 = cbr(48, 24)
            self.u2 = nn.ConvTranspose2d(24, 16, 2, 2)
            self.d2 = cbr(32, 16)
            self.o = nn.Conv2d(16, 4, 1)

        def forward(self, x):
            a = self.a(x)
            b = self.b(F.max_pool2d(a, 2))
            c = self.c(F.max_pool2d(b, 2))
            y = self.d1(torch.cat([self.u1(c), b], 1))
            return self.o(self.d2(torch.cat([self.u2(y), a], 1)))

    return (UN(), images())


@model
def fpn():

    class FP(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = cbr(3, 16)
            self.b = cbr(16, 24, 3, 2)
            self.l1 = nn.Conv2d(16, 20, 1)
            self.l2 = nn.Conv2d(24, 20, 1)
            self.o = nn.Conv2d(20, 6, 3, padding=1)

        def forward(self, x):
            a = self.a(x)
            b = self.b(a)
            p2 = self.l2(b)
            p1 = self.l1(a) + F.interpolate(p2, scale_factor=2)
            return {"p1": self.o(p1), "p2": self.o(p2)}

    return (FP(), images())


@model
def c2f():

    class Bt(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a = cbr(c, c)
            self.b = cbr(c, c)

        def forward(self, x):
            return x + self.b(self.a(x))

    class C2f(nn.Module):
        def __init__(self, i, o, n=2):
            super().__init__()
            self.c = o // 2
            self.cv1 = cbr(i, 2 * self.c, 1)
            self.cv2 = cbr((2 + n) * self.c, o, 1)
            self.m = nn.ModuleList(Bt(self.c) for _ in range(n))

        def forward(self, x):
            y = list(self.cv1(x).chunk(2, 1))
            y.extend(m(y[-1]) for m in self.m)
            return self.cv2(torch.cat(y, 1))

    class C2s(C2f):
        def forward(self, x):
            y = list(self.cv1(x).split((self.c, self.c), 1))
            y.extend(m(y[-1]) for m in self.m)
            return self.cv2(torch.cat(y, 1))

    return (Head(nn.Sequential(cbr(3, 16), C2f(16, 24), C2s(24, 32)), 32), images())


@model
def inplace_slice():

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
            x[:, :6] += y
            return self.c(x)

    return (Head(Net(), 12), images())


@model
def channelwise():
    """ChannelNet: a convolution that runs along the channels."""

    class Along(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(1, 2, (8, 1, 1), (2, 1, 1), (3, 0, 0), bias=False)

        def forward(self, x):
            return self.conv(x.unsqueeze(1)).flatten(1, 2)

    return (Head(nn.Sequential(cbr(3, 12), cbr(12, 16), Along(), cbr(16, 12)), 12), images())


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
