"""Only attributes that the model's code reads are tried: any other equals a size by chance."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision
from torch import nn

from potstill.thinning import trace
from potstill.thinning.rehearsal.names_read import NamesRead
from potstill.thinning.rehearsal.rehearse import Rehearsal


class Heads(nn.Module):
    """A view by a number of heads and a number in the code, which no attribute gives."""

    def __init__(self, unread):
        super().__init__()
        for number in range(unread):
            setattr(self, f"width_{number}", 24)
        self.heads, self.depth = 4, 24
        self.inner, self.out = nn.Linear(8, 24), nn.Linear(24, 3)

    def forward(self, x):
        heads = getattr(self, "heads")  # noqa: B009
        return self.out(self.inner(x).relu().view(len(x), heads, 6).transpose(1, 2).reshape(len(x), 24))


def names_of(model, *inputs):
    names = NamesRead(model)
    with names:
        model(*inputs)
    return names


def test_names_that_code_reads_by_dot_and_in_text_count():
    names = names_of(Heads(1), torch.randn(2, 8))
    assert names.of("", "inner") and names.of("", "heads")
    assert not names.of("", "width_0") and not names.of("", "depth")
    # torch's own code asks tensors for `dim()` and the like; of modules it reads `normalized_shape`
    names = names_of(nn.LayerNorm(4), torch.randn(2, 4))
    assert names.of("", "normalized_shape") and not names.of("", "weight")
    names = names_of(torchvision.models.shufflenet_v2_x0_5().eval(), torch.randn(1, 3, 32, 32))
    assert names.of("stage2.0", "branch1") and not names.of("", "num_classes")


class Inner(nn.Module):
    """What the methods of a module read of it is read of no other; what is read of another may be anybody's."""

    def __init__(self, limits):
        super().__init__()
        self.heads, self.limits, self.width = 4, limits, 4

    def forward(self, x):
        heads, (first, _) = self.heads, self.limits
        return x * heads + first


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner((1, 2))
        self.heads = self.limits = self.width = 4

    def forward(self, x):
        return sum(self.inner(x) for _ in range(self.limits)) * self.inner.width


def test_what_a_method_reads_of_its_own_module_is_read_of_no_other():
    names = names_of(Outer(), torch.randn(2))
    assert names.of("inner", "heads") and not names.of("", "heads")
    assert names.of("inner", "limits") and names.of("", "limits")
    assert names.of("inner", "width") and names.of("", "width")  # whose it is cannot be told
    assert not names.anywhere("heads") and names.anywhere("width")


def test_another_object_may_get_the_name_of_the_first_argument():
    class Reused(Outer):
        def forward(self, x):
            self = self.inner  # noqa: PLW0642
            return x * self.heads

    names = names_of(Reused(), torch.randn(2))
    assert names.of("inner", "heads")


def test_unknown_code_may_read_anything():
    names = NamesRead(nn.Module())
    with pytest.raises(ZeroDivisionError), names:
        raise ZeroDivisionError
    assert names.of("", "anything") and sys.getprofile() is None


def test_another_profiler_keeps_its_place():
    calls = []
    sys.setprofile(lambda *call: calls.append(call))
    try:
        profiler = sys.getprofile()
        names = names_of(Heads(0), torch.randn(2, 8))
        assert sys.getprofile() is profiler and names.of("", "anything")
    finally:
        sys.setprofile(None)


def test_attributes_that_nothing_reads_cost_no_run(monkeypatch):
    runs = []
    deviation = Rehearsal.deviation
    monkeypatch.setattr(Rehearsal, "deviation", lambda *args: runs.append(1) or deviation(*args))

    def counted(unread):
        runs.clear()
        graph = trace(Heads(unread), torch.randn(2, 8))
        return len(runs), [group.reason for group in graph.classes()]

    assert counted(6) == counted(0)
