"""Sizes in the model's own code: those that follow from attributes change with them, others cost their layer alone."""

from __future__ import annotations

import copy
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import thin

from .networks import shrunk

Sizes = namedtuple("Sizes", ["width", "out"])
X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


class NormReLU(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Running(nn.Module):
    """Gives back as many channels as it gets, by number."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return self.conv(x).flatten(1).cumsum(1).reshape(x.shape)


def conv(inputs, outputs, norm):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), norm(outputs))


def test_one_odd_layer_costs_one_layer_and_is_named():
    blocks = [conv(3, 24, NormReLU), conv(24, 32, NormReLU), Running(32), NormReLU(32), conv(32, 48, NormReLU)]
    model = nn.Sequential(*blocks, nn.Conv2d(48, 4, 1))
    recipe = shrunk(model, X, **{"0__0": [1, 2], "0__1": [1, 2], "4__0": [5], "4__1": [5]})
    assert [len(model[i][0].weight) for i in (0, 1, 4)] == [22, 32, 47]
    reasons = [kept.reason for kept in recipe.frozen if kept.use == "1.0.weight[0]"]
    assert len(reasons) == 1 and "view in 2 (Running)" in reasons[0]


class Halves(nn.Module):
    """The same cut written in several ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.c, self.total, self.paths = way, 16, 32, 2
        self.expand, self.inner, self.out = nn.Conv2d(3, 32, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x):
        x = F.relu(self.expand(x))
        if self.way == "pair":
            a, b = x.split((self.c, self.c), 1)
        elif self.way == "quotient":
            a, b = x.split(self.total // self.paths, 1)
        elif self.way == "difference":
            a, b = x[:, : self.total - self.c], x[:, self.total - self.c :]
        else:
            a, b = x[:, : self.total // 2], x[:, self.total // 2 :]
        return self.out(torch.cat([F.relu(self.inner(a)), b], 1))


@pytest.mark.parametrize("way", ["pair", "quotient", "slice"])
def test_halves_lose_the_same_channels(way):
    model = Halves(way)
    shrunk(model, X, expand=[1, 2, 17, 18])
    assert (len(model.expand.weight), model.inner.weight.shape[1], model.out.weight.shape[1]) == (28, 14, 30)
    assert (model.total, model.paths) == ((28 if way != "pair" else 32), 2)


def test_a_part_that_is_counted_by_a_difference():
    model = Halves("difference")
    shrunk(model, X, expand=[1, 2, 17, 18])
    assert len(model.expand.weight) == 28


class Equal(nn.Module):
    """Two numbers of one value of which one changes."""

    def __init__(self):
        super().__init__()
        self.keys, self.values = 16, 16
        self.stem, self.qkv, self.out = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 48, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        q, k, v = self.qkv(x).split([self.keys, self.keys, self.values], 1)
        attention = (q.flatten(2).transpose(1, 2) @ k.flatten(2)).softmax(-1)
        return self.out(x + (v.flatten(2) @ attention.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:]))


@pytest.mark.parametrize(("dead", "left"), [([33, 34], (16, 14)), ([1, 2, 3, 17, 18, 19], (13, 16))])
def test_of_two_numbers_of_one_value_the_right_one_changes(dead, left):
    model = Equal()
    rows = [row - 32 for row in dead if row >= 32]
    shrunk(model, X, stem=rows, qkv=dead)
    assert (model.keys, model.values) == left


class Heads(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.num_heads, self.head_dim, self.dim, self.attn_dim = way, 4, 8, 32, 32
        self.qkv, self.o = nn.Linear(16, 96), nn.Linear(32, 16)

    def forward(self, x):
        batch, length, _ = x.shape
        width = self.dim // self.num_heads if self.way == "quotient" else self.head_dim
        if self.way == "chunk":  # `reshape` fails before it becomes an operation that is seen
            parts = [part.reshape(batch, length, self.num_heads, width) for part in self.qkv(x).chunk(3, 2)]
            q, k, v = (part.transpose(1, 2) for part in parts)
        else:
            q, k, v = self.qkv(x).reshape(batch, length, 3, self.num_heads, width).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        width = {"quotient": self.dim, "attribute": self.attn_dim}.get(self.way, self.num_heads * width)
        return self.o(y.reshape(batch, length, width))


@pytest.mark.parametrize("way", ["quotient", "product", "attribute", "chunk"])
def test_numbers_of_heads_and_widths_change_together(way):
    model = Heads(way)
    rows = [32 * part + i for part in range(3) for i in range(8, 16)]
    shrunk(model, torch.randn(2, 5, 16), qkv=rows)  # the value of the head is 0, so nothing of it is seen
    assert (model.num_heads, len(model.qkv.weight), model.o.weight.shape[1]) == (3, 72, 24)


class Blocks(nn.Module):
    """Channels in blocks of 4, by a number in the code; as many blocks as there are."""

    def __init__(self, blocks):
        super().__init__()
        self.first, self.act, self.out = nn.Linear(6, 4 * blocks), nn.ReLU(), nn.Linear(4 * blocks, 3)

    def forward(self, x):
        x = self.act(self.first(x)).unflatten(1, (-1, 4))
        return self.out((x * x.cos()).flatten(1))


@pytest.mark.parametrize("blocks", [4, 5])  # with a row less in each, 12 can be shared out to blocks of 4, 15 cannot
def test_whole_blocks_go(blocks):
    model = Blocks(blocks)
    shrunk(model, torch.randn(5, 6), first=range(4, 8))
    assert len(model.first.weight) == model.out.weight.shape[1] == 4 * blocks - 4


class Grouped(nn.Module):
    """A norm over groups by the functional form, whose number of groups is an attribute of the block."""

    def __init__(self):
        super().__init__()
        self.groups, self.first, self.out = 4, nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return self.out(F.relu(F.group_norm(self.first(x), self.groups)))


def grouped():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 4, 1))


def test_a_norm_loses_whole_groups():
    model = grouped()
    shrunk(model, X, **{"0": range(4, 8), "1": range(4, 8)})
    assert (model[1].num_groups, model[1].num_channels, model[0].out_channels) == (3, 12, 12)
    other = Grouped()
    shrunk(other, X, first=range(4, 8))
    assert (other.groups, len(other.first.weight)) == (3, 12)


class Shown(nn.Module):
    """Two norms over groups; the first one's channels are an output, so that nothing of it goes."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.out = grouped()[:2], grouped()[:2], nn.Conv2d(16, 4, 1)
        self.inner[0] = nn.Conv2d(16, 16, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        return torch.cat([x.flatten(1), self.out(F.relu(self.inner(x))).flatten(1)], 1)


def test_a_norm_of_which_nothing_goes_costs_no_other_its_groups():
    model = Shown()
    shrunk(model, X, first__0=range(4, 8), first__1=range(4, 8), inner__0=range(8, 12), inner__1=range(8, 12))
    assert (model.first[1].num_groups, model.inner[1].num_groups, model.inner[0].out_channels) == (4, 3, 12)


def test_single_channels_of_groups_stay_unless_asked_for_and_the_difference_is_told():
    model, zeros = grouped(), [1, 5, 10, 15, 2]
    recipe = shrunk(copy.deepcopy(model), X, **{"0": zeros, "1": zeros})
    (kept,) = recipe.refused
    assert recipe.removes_nothing and kept.channels == 5
    assert "averages over the channels of a group (allow_inexact=True" in kept.reason
    with torch.no_grad():
        for parameter in [*model[0].parameters(), *model[1].parameters()]:
            parameter[zeros] = 0
    before = model(X)
    thin(model, X, allow_inexact=True)  # as many of each group: 1, 5, 10, 15
    assert (model[1].num_groups, model[1].num_channels) == (4, 12)
    assert not torch.allclose(model(X), before, rtol=1e-3)


def test_a_vision_transformer_of_timm_loses_whole_heads():
    timm = pytest.importorskip("timm.models.vision_transformer")
    width, heads = 32, 4
    model = timm.VisionTransformer(img_size=16, patch_size=8, embed_dim=width, depth=2, num_heads=heads, num_classes=5)
    before, gone = sum(p.numel() for p in model.parameters()), (1, 2)
    rows = [width * part + 8 * head + i for part in range(3) for head in gone for i in range(8)]
    shrunk(model, torch.randn(2, 3, 16, 16), blocks__0__attn__qkv=rows, blocks__1__attn__qkv=rows[8:16])
    # two heads of the first block (queries, keys, values, what reads them); of the second the queries of one alone stay
    assert before - sum(p.numel() for p in model.parameters()) == len(gone) * 8 * (3 * (width + 1) + width)
    assert [block.attn.num_heads for block in model.blocks] == [heads - len(gone), heads]


class Mixer(nn.Module):
    """Two attributes of one value, of which a cut shows one, and a view after it the other."""

    def __init__(self):
        super().__init__()
        self.width, self.heads, self.state = 16, 4, 16
        self.inner, self.states = nn.Linear(6, 64), nn.Linear(6, 18)
        self.out, self.read = nn.Linear(64, 5), nn.Linear(16, 5)

    def forward(self, x):
        state, rest = self.states(x).split([self.state, 2], -1)
        heads = self.inner(x).view(-1, self.heads, self.width).relu()
        return self.out(heads.flatten(1)) + self.read(state) + rest.sum(-1, keepdim=True)


def test_a_number_that_was_taken_for_another_of_its_value_is_put_right():
    model = Mixer()
    shrunk(model, torch.randn(2, 6), inner=range(16, 32), states=[1, 2])
    assert (model.heads, model.width, model.state) == (3, 16, 14)
    assert [len(layer.weight) for layer in (model.inner, model.states)] == [48, 16]


class Repeated(nn.Module):
    """Sums its channels four times, as a parameter has it whose elements are outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.scale = nn.Linear(6, 16), nn.Parameter(torch.randn(4))

    def forward(self, x):
        values, gates = self.first(x).chunk(2, -1)
        sums = (values * gates).unsqueeze(1).expand(-1, 4, -1).sum(-1)
        return sums.reshape(-1).view(-1, 4).t() * self.scale.unsqueeze(1)


def test_copies_that_meet_what_stays_cost_no_other_channels():
    model = Repeated()
    shrunk(model, torch.randn(2, 6), first=[1, 2, 9, 10])
    assert len(model.first.weight) == 12


class Products(nn.Module):
    """Its code multiplies heads and widths where no axis has either: `split(heads * width)`."""

    def __init__(self, keys):
        super().__init__()
        self.heads, self.keys, self.width = 4, keys, 5
        self.qkv, self.o = nn.Linear(6, (4 + 2 * keys) * 5), nn.Linear(20, 6)

    def forward(self, x):
        sizes = [number * self.width for number in (self.heads, self.keys, self.keys)]
        parts = self.qkv(x).split(sizes[0] if self.keys == self.heads else sizes, 2)
        q, k, v = (part.unflatten(2, (-1, self.width)).transpose(1, 2) for part in parts)
        k, v = (part.repeat_interleave(self.heads // self.keys, 1) for part in (k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("keys", "left"), [(4, (3, 3)), (2, (2, 1))])
def test_products_of_attributes_that_no_axis_shows(keys, left):
    model = Products(keys)
    start = (4 + keys) * 5
    shrunk(model, torch.randn(2, 5, 6), qkv=range(start, start + 5))  # the values of one head, or of one group of two
    heads, groups = left
    assert (model.heads, model.keys, len(model.qkv.weight)) == (heads, groups, (heads + 2 * groups) * 5)


class Named(nn.Module):
    """Keeps its widths in a named tuple."""

    def __init__(self):
        super().__init__()
        self.sizes = Sizes(8, 3)
        self.first, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.first(x).relu().reshape(-1, self.sizes.width))


def test_a_size_in_a_named_tuple():
    model = Named()
    shrunk(model, torch.randn(4, 6), first=[1, 4])
    assert model.sizes == Sizes(6, 3) and len(model.first.weight) == 6


class Fixed(nn.Module):
    """A view by numbers that no attribute holds."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(6, 24), nn.Linear(24, 6)

    def forward(self, x):
        return self.out(self.inner(x).view(-1, 4, 6).relu().flatten(1))


class Counted(Fixed):
    """The same by a number that an attribute holds."""

    def __init__(self):
        super().__init__()
        self.width = 6

    def forward(self, x):
        return self.out(self.inner(x).view(-1, 4, self.width).relu().flatten(1))


def test_a_fixed_size_casts_no_doubt_on_numbers_of_other_modules():
    model = nn.Sequential(Counted(), Fixed())
    shrunk(model, torch.randn(2, 6), **{"0__inner": [2, 8, 14, 20], "1__inner": range(6)})
    assert [len(part.inner.weight) for part in model] == [20, 24] and model[0].width == 5


class Cut(nn.Module):
    """Cuts its channels at a number in the code."""

    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = nn.Linear(6, 12), nn.Linear(5, 3), nn.Linear(7, 3)

    def forward(self, x):
        x = self.first(x)
        return self.left(x[:, :5]) + self.right(x[:, 5:])


def test_a_cut_at_a_number_in_the_code_is_told():
    model = Cut()
    recipe = shrunk(model, torch.randn(4, 6), first=[1])
    assert len(model.first.weight) == 12
    assert "(it cuts at 5, which no integer of a module around counts)" in recipe.refused[0].reason


class Checked(nn.Module):
    """Looks at the width of what comes before a layer of an inner module gets it."""

    def __init__(self, width, out):
        super().__init__()
        self.width, self.out, self.op = width, out, nn.Sequential(nn.Conv2d(width, out, 1))

    def forward(self, x):
        if x.shape[1] != self.width:
            raise ValueError(f"{x.shape[1]} channels, not {self.width}")
        return self.op(x)


def test_a_width_that_is_checked_before_the_layer_of_an_inner_module():
    model = nn.Sequential(nn.Conv2d(3, 12, 1), Checked(12, 12), Checked(12, 10), nn.Conv2d(10, 4, 1))
    shrunk(model, X, **{"0": [1, 2], "1__op__0": [5], "2__op__0": [0, 3, 4]})
    assert [(model[i].width, model[i].op[0].weight.shape[:2]) for i in (1, 2)] == [(10, (11, 10)), (11, (7, 11))]
