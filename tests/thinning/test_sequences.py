"""Sequences, attention and mixtures: each is thinned exactly, or what stays is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .networks import Networks

SAID = {
    "maxout": ("the thinned model fails",),
    "encdec": ("nn.MultiheadAttention shares",),
    "lstm_tagger": ("rows are chosen by an index",),
}
LEFT = {
    "lstm_tagger": (6427,),
    "gru_last": (1255,),
    "rnncell": (1755,),
    "encdec": (9701,),
    "bilinear": (829,),
    "lnchan": (400, 274),
    "tied": (408,),
    "einsum": (177,),
    "moe": (486,),
    "dictin": (174,),
    "maxout": (220,),
}
model = Networks(SAID, untouched={"maxout"}, left=LEFT)


@model
def lstm_tagger():

    class T(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(30, 16)
            self.l = nn.LSTM(16, 20, 2, batch_first=True, bidirectional=True)
            self.o = nn.Linear(40, 7)

        def forward(self, x):
            y, _ = self.l(self.e(x))
            return self.o(y)

    return (T(), torch.randint(0, 30, (2, 6)))


@model
def gru_last():

    class T(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(30, 16)
            self.l = nn.GRU(16, 20)
            self.o = nn.Linear(20, 7)

        def forward(self, x):
            _y, h = self.l(self.e(x).transpose(0, 1))
            return self.o(h[-1])

    return (T(), torch.randint(0, 30, (2, 6)))


@model
def rnncell():

    class T(nn.Module):
        def __init__(self):
            super().__init__()
            self.i = nn.Linear(4, 12)
            self.c = nn.LSTMCell(12, 16)
            self.o = nn.Linear(16, 3)

        def forward(self, x):
            h = c = torch.zeros(x.shape[0], 16)
            for t in range(x.shape[1]):
                h, c = self.c(self.i(x[:, t]), (h, c))
            return self.o(h)

    return (T(), torch.randn(2, 5, 4))


@model
def encdec():

    class T(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Transformer(16, 2, 2, 2, 32, batch_first=True)
            self.o = nn.Linear(16, 5)

        def forward(self, a, b):
            return self.o(self.t(a, b))

    return (T(), (torch.randn(2, 5, 16), torch.randn(2, 4, 16)))


@model
def bilinear():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 12)
            self.b = nn.Linear(6, 10)
            self.c = nn.Bilinear(12, 10, 14)
            self.d = nn.Linear(14, 3)

        def forward(self, x):
            return self.d(F.relu(self.c(F.relu(self.a(x)), F.relu(self.b(x)))))

    return (Net(), torch.randn(3, 6))


@model
def lnchan():
    return (
        nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 4)),
        torch.randn(3, 6),
    )


@model
def tied():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(12, 20)
            self.b = nn.Linear(20, 12)

        def forward(self, x):
            h = torch.tanh(F.linear(x, self.a.weight, self.a.bias))
            return F.linear(h, self.a.weight.t(), self.b.bias)

    return (Net(), torch.randn(3, 12))


@model
def einsum():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 16)
            self.w = nn.Parameter(torch.randn(16, 12))
            self.d = nn.Linear(12, 3)

        def forward(self, x):
            return self.d(F.relu(torch.einsum("bni,io->bno", F.relu(self.a(x)), self.w)))

    return (Net(), torch.randn(2, 5, 6))


@model
def moe():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.g = nn.Linear(8, 3)
            self.e = nn.ModuleList([nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3)])
            self.o = nn.Linear(8, 4)

        def forward(self, x):
            w = self.g(x).softmax(-1)
            y = torch.stack([e(x) for e in self.e], -1)
            return self.o((y * w.unsqueeze(1)).sum(-1))

    return (Net(), torch.randn(5, 8))


@model
def dictin():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 16)
            self.b = nn.Linear(5, 16)
            self.o = nn.Linear(16, 4)

        def forward(self, x, y=None):
            return {"out": self.o(F.relu(self.a(x) + self.b(y)))}

    return (Net(), {"x": torch.randn(3, 6), "y": torch.randn(3, 5)})


@model
def maxout():

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 24)
            self.o = nn.Linear(12, 4)

        def forward(self, x):
            return self.o(self.a(x).view(-1, 12, 2).amax(-1))

    return (Net(), torch.randn(3, 6))


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
