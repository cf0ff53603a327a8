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


def names_of(run):
    names = NamesRead()
    with names:
        run()
    return names


def test_names_that_code_reads_by_dot_and_in_text_count():
    model = Heads(1)
    names = names_of(lambda: model(torch.randn(2, 8)))
    assert "inner" in names and "heads" in names
    assert "width_0" not in names and "depth" not in names
    # torch's own code asks tensors for `dim()` and the like; of modules it reads `normalized_shape`
    norm = nn.LayerNorm(4)
    names = names_of(lambda: norm(torch.randn(2, 4)))
    assert "normalized_shape" in names and "weight" not in names
    model = torchvision.models.shufflenet_v2_x0_5().eval()
    names = names_of(lambda: model(torch.randn(1, 3, 32, 32)))
    assert "branch1" in names and "num_classes" not in names


def test_unknown_code_may_read_anything():
    names = NamesRead()
    with pytest.raises(ZeroDivisionError), names:
        raise ZeroDivisionError
    assert "anything" in names and sys.getprofile() is None


def test_another_profiler_keeps_its_place():
    calls = []
    sys.setprofile(lambda *call: calls.append(call))
    try:
        profiler = sys.getprofile()
        names = names_of(lambda: Heads(0)(torch.randn(2, 8)))
        assert sys.getprofile() is profiler and "anything" in names
    finally:
        sys.setprofile(None)


def test_attributes_that_nothing_reads_cost_no_run(monkeypatch):
    runs = []
    failure = Rehearsal.failure
    monkeypatch.setattr(Rehearsal, "failure", lambda *args: runs.append(1) or failure(*args))

    def counted(unread):
        runs.clear()
        graph = trace(Heads(unread), torch.randn(2, 8))
        return len(runs), [group.reason for group in graph.classes()]

    assert counted(6) == counted(0)
