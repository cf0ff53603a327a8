"""Sequences, attention and mixtures: each is thinned exactly, or what stays is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

MODELS: dict[str, Callable[[], Any]] = {}
NOTHING_TO_REMOVE = {"maxout"}
SAID: dict[str, tuple[str, ...]] = {
    "maxout": ("the thinned model fails",),
    "encdec": ("nn.MultiheadAttention shares",),
    "lstm_tagger": ("rows are chosen by an index",),
}


def model(build: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[build.__name__] = build
    return build


def cbr(i, o, k=3, s=1, g=1):
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), nn.ReLU())


def images():
    return torch.randn(2, 3, 16, 16)


class Attn(nn.Module):
    def __init__(self, c, h, fixed=False):
        super().__init__()
        self.num_heads = h
        self.head_dim = c // h
        self.scale = self.head_dim ** (-0.5)
        self.qkv = nn.Linear(c, 3 * c)
        self.proj = nn.Linear(c, c)
        self.fixed = fixed

    def forward(self, x):
        B, N, C = x.shape
        if self.fixed:
            qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        else:
            qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        y = (a @ v).transpose(1, 2).reshape(B, N, C if self.fixed else self.num_heads * self.head_dim)
        return self.proj(y)


class Blk(nn.Module):
    def __init__(self, c, h, fixed=False):
        super().__init__()
        self.n1 = nn.LayerNorm(c)
        self.a = Attn(c, h, fixed)
        self.n2 = nn.LayerNorm(c)
        self.m = nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))

    def forward(self, x):
        x = x + self.a(self.n1(x))
        return x + self.m(self.n2(x))


@model
def mixer():

    class Mx(nn.Module):
        def __init__(self, n, c):
            super().__init__()
            self.n1 = nn.LayerNorm(c)
            self.t = nn.Sequential(nn.Linear(n, 32), nn.GELU(), nn.Linear(32, n))
            self.n2 = nn.LayerNorm(c)
            self.c = nn.Sequential(nn.Linear(c, 40), nn.GELU(), nn.Linear(40, c))

        def forward(self, x):
            x = x + self.t(self.n1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.c(self.n2(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Conv2d(3, 24, 4, 4)
            self.b = nn.Sequential(Mx(16, 24), Mx(16, 24))
            self.f = nn.Linear(24, 10)

        def forward(self, x):
            x = self.p(x).flatten(2).transpose(1, 2)
            return self.f(self.b(x).mean(1))

    return (Net(), images())


@model
def gmlp():

    class U(nn.Module):
        def __init__(self, n, c):
            super().__init__()
            self.n = nn.LayerNorm(c // 2)
            self.t = nn.Linear(n, n)

        def forward(self, x):
            u, v = x.chunk(2, -1)
            v = self.t(self.n(v).transpose(-1, -2))
            return u * v.transpose(-1, -2)

    class B(nn.Module):
        def __init__(self, n, c):
            super().__init__()
            self.a = nn.Linear(c, 48)
            self.u = U(n, 48)
            self.b = nn.Linear(24, c)

        def forward(self, x):
            return x + self.b(self.u(F.gelu(self.a(x))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Conv2d(3, 24, 4, 4)
            self.b = nn.Sequential(B(16, 24), B(16, 24))
            self.f = nn.Linear(24, 10)

        def forward(self, x):
            x = self.p(x).flatten(2).transpose(1, 2)
            return self.f(self.b(x).mean(1))

    return (Net(), images())


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
def vit_free():

    class V(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Conv2d(3, 24, 4, 4)
            self.cls = nn.Parameter(torch.randn(1, 1, 24))
            self.pos = nn.Parameter(torch.randn(1, 17, 24))
            self.b = nn.Sequential(Blk(24, 4), Blk(24, 4))
            self.n = nn.LayerNorm(24)
            self.f = nn.Linear(24, 10)

        def forward(self, x):
            x = self.p(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
            return self.f(self.n(self.b(x))[:, 0])

    return (V(), images())


@model
def vit_fixed():
    n, x = vit_free()
    n.b = nn.Sequential(Blk(24, 4, True), Blk(24, 4, True))
    return (n, x)


@model
def gpt():

    class G(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(40, 24)
            self.pe = nn.Embedding(16, 24)
            self.b = nn.Sequential(*[GB(24, 4) for _ in range(2)])
            self.n = nn.LayerNorm(24)
            self.h = nn.Linear(24, 40, bias=False)
            self.h.weight = self.e.weight

        def forward(self, x):
            t = torch.arange(x.shape[1], device=x.device)
            return self.h(self.n(self.b(self.e(x) + self.pe(t))))

    class GB(nn.Module):
        def __init__(self, c, h):
            super().__init__()
            self.n_head = h
            self.n_embd = c
            self.n1 = nn.LayerNorm(c)
            self.attn = nn.Linear(c, 3 * c)
            self.proj = nn.Linear(c, c)
            self.n2 = nn.LayerNorm(c)
            self.m = nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))

        def forward(self, x):
            B, T, C = x.size()
            q, k, v = self.attn(self.n1(x)).split(self.n_embd, dim=2)
            q, k, v = [t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v)]
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(B, T, C)
            x = x + self.proj(y)
            return x + self.m(self.n2(x))

    return (G(), torch.randint(0, 40, (2, 8)))


@model
def llama():

    class RMS(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(c))

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-06)

    class L(nn.Module):
        def __init__(self, c, h, kv):
            super().__init__()
            self.h = h
            self.kv = kv
            self.d = c // h
            self.n1 = RMS(c)
            self.q = nn.Linear(c, c, bias=False)
            self.k = nn.Linear(c, kv * self.d, bias=False)
            self.v = nn.Linear(c, kv * self.d, bias=False)
            self.o = nn.Linear(c, c, bias=False)
            self.n2 = RMS(c)
            self.g = nn.Linear(c, 3 * c, bias=False)
            self.u = nn.Linear(c, 3 * c, bias=False)
            self.dn = nn.Linear(3 * c, c, bias=False)

        def forward(self, x):
            B, T, _C = x.shape
            y = self.n1(x)
            q = self.q(y).view(B, T, self.h, self.d).transpose(1, 2)
            k = self.k(y).view(B, T, self.kv, self.d).transpose(1, 2)
            v = self.v(y).view(B, T, self.kv, self.d).transpose(1, 2)
            f = torch.outer(torch.arange(T, dtype=torch.float32), 1 / 100 ** (torch.arange(0, self.d, 2) / self.d))
            cos = torch.cat([f, f], -1).cos()
            sin = torch.cat([f, f], -1).sin()
            def rot(t):
                return torch.cat([-t[..., self.d // 2 :], t[..., : self.d // 2]], -1)
            q = q * cos + rot(q) * sin
            k = k * cos + rot(k) * sin
            k = k.repeat_interleave(self.h // self.kv, 1)
            v = v.repeat_interleave(self.h // self.kv, 1)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, -1)
            x = x + self.o(y)
            y = self.n2(x)
            return x + self.dn(F.silu(self.g(y)) * self.u(y))

    return (
        nn.Sequential(nn.Embedding(30, 24), L(24, 4, 2), L(24, 4, 2), nn.Linear(24, 30)),
        torch.randint(0, 30, (2, 6)),
    )


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


@pytest.mark.parametrize("name", MODELS)
def test_exact(name: str, thinned) -> None:
    network, inputs = MODELS[name]()
    least = 0.0 if name in NOTHING_TO_REMOVE else 0.01
    recipe = thinned(network, inputs, least)
    assert recipe.removes_nothing == (name in NOTHING_TO_REMOVE)
    for words in SAID.get(name, ()):
        assert any(words in kept.reason for kept in (*recipe.frozen, *recipe.refused))
