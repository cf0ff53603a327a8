"""Attention and mixing over tokens: each is thinned exactly, or what stays is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .networks import Head, Networks, cbr, images

SAID = {"gpt": ("rows are chosen by an index",)}
LEFT = {
    "nonlocal_": (1341,),
    "coatt": (5129, 3683),
    "mixer": (5370, 5370),
    "gmlp": (3821, 2939),
    "vit_free": (8600, 5441),
    "vit_fixed": (9788,),
    "gpt": (12116,),
    "llama": (11358, 7110),
    "ws": (3214, 2386),
    "repvgg": (2116,),
}
model = Networks(SAID, left=LEFT)


class Tokens(nn.Module):
    """Patches, blocks that mix them, a classifier on their mean."""

    def __init__(self, *blocks):
        super().__init__()
        self.p = nn.Conv2d(3, 24, 4, 4)
        self.b = nn.Sequential(*blocks)
        self.f = nn.Linear(24, 10)

    def forward(self, x):
        x = self.p(x).flatten(2).transpose(1, 2)
        return self.f(self.b(x).mean(1))


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
def nonlocal_():

    class N(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.t = nn.Conv2d(c, 8, 1)
            self.p = nn.Conv2d(c, 8, 1)
            self.g = nn.Conv2d(c, 8, 1)
            self.o = nn.Conv2d(8, c, 1)

        def forward(self, x):
            B, _C, H, W = x.shape
            t = self.t(x).flatten(2).transpose(1, 2)
            p = self.p(x).flatten(2)
            a = (t @ p).softmax(-1)
            g = self.g(x).flatten(2).transpose(1, 2)
            y = (a @ g).transpose(1, 2).reshape(B, -1, H, W)
            return x + self.o(y)

    return (Head(nn.Sequential(cbr(3, 16), N(16), cbr(16, 12)), 12), images())


@model
def coatt():

    class M(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            h = i * 4
            self.n = nn.BatchNorm2d(i)
            self.a = cbr(i, h, 1)
            self.d = cbr(h, h, 3, g=h)
            self.se = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(h, 4, 1), nn.SiLU(), nn.Conv2d(4, h, 1), nn.Sigmoid()
            )
            self.b = nn.Conv2d(h, o, 1)
            self.s = nn.Conv2d(i, o, 1)

        def forward(self, x):
            y = self.d(self.a(self.n(x)))
            return self.s(x) + self.b(y * self.se(y))

    class T(nn.Module):
        def forward(self, x):
            self.sh = x.shape
            return x.flatten(2).transpose(1, 2)

    class Bk(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.b = Blk(c, 4)

        def forward(self, x):
            B, C, H, W = x.shape
            return self.b(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(B, C, H, W)

    return (Head(nn.Sequential(cbr(3, 12), M(12, 16), Bk(16), cbr(16, 20)), 20), images())


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

    return (Tokens(Mx(16, 24), Mx(16, 24)), images())


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

    return (Tokens(B(16, 24), B(16, 24)), images())


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
def ws():

    class WS(nn.Conv2d):
        def forward(self, x):
            w = self.weight
            mu = w.mean((1, 2, 3), keepdim=True)
            sd = w.std((1, 2, 3), keepdim=True) + 1e-05
            return F.conv2d(x, (w - mu) / sd, self.bias, self.stride, self.padding)

    return (
        Head(
            nn.Sequential(
                WS(3, 16, 3, padding=1),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                WS(16, 20, 3, padding=1),
                nn.BatchNorm2d(20),
                nn.ReLU(),
                cbr(20, 12),
            ),
            12,
        ),
        images(),
    )


@model
def repvgg():

    class Rep(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a = nn.Conv2d(c, c, 3, padding=1, bias=False)
            self.b = nn.Conv2d(c, c, 1, bias=False)

        def forward(self, x):
            return F.relu(F.conv2d(x, self.a.weight + F.pad(self.b.weight, (1, 1, 1, 1)), padding=1))

    return (Head(nn.Sequential(cbr(3, 16), Rep(16), cbr(16, 12)), 12), images())


@pytest.mark.parametrize("name", model)
def test_exact(name: str, thinned) -> None:
    model.check(name, thinned)
