"""What meets element by element: tables for parts of an axis, fresh tensors, states."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .networks import Between, class_of, left_after, rand

PARTS = {
    "heads": (lambda x: x.view(len(x), -1, 4), [0, 1, 2, 3], (4, 4)),  # one of the two heads goes, the table stays
    "halves": (lambda x: x.view(len(x), 2, -1), [1, 5], (6, 3)),  # the same of both goes, and of the table
}
ORDERS = {"table first": lambda table, x: table * x, "table last": lambda table, x: x * table}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_table_for_each_part_of_an_axis(part, order):
    parts, dead, (units, rows) = PARTS[part]
    model = Between(lambda m, x: ORDERS[order](m.table, parts(x)).flatten(1), parts={"table": nn.Parameter(rand(4))})
    zero = [(0, dead)]
    left, _ = left_after(model, (rand(4, 6),), first__weight=zero, first__bias=zero)
    assert (left["first.weight"], left["table"], left["second.weight"]) == ((units, 6), (rows,), (3, units))


class Gated(nn.Module):
    """One step from a state of zeros, which is joined with the input and added to the result."""

    def __init__(self):
        super().__init__()
        self.step, self.out = nn.Linear(11, 8), nn.Linear(8, 2)

    def forward(self, x):
        state = x.new_zeros(len(x), self.step.out_features)
        return self.out(state + self.step(torch.cat([x, state], 1)).tanh())


def test_a_fresh_state_has_the_channels_of_what_it_is_added_to():
    zero = [(0, [2, 5])]
    left, _ = left_after(Gated(), (rand(4, 3),), step__weight=zero, step__bias=zero)
    assert left == {"step.weight": (6, 9), "step.bias": (6,), "out.weight": (2, 6), "out.bias": (2,)}


def test_what_meets_a_tensor_written_by_an_unknown_operation_stays():
    class Scattered(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            y = self.other(x)
            written = y.new_zeros(y.shape)
            written.put_(torch.arange(x.shape[0] * 8).flip(0), self.first(x))
            return self.out(y + written)

    reasons = [class_of(Scattered(), rand(4, 6), name).reason for name in ("first.weight", "other.weight")]
    cause = "aten.put_ in the model (Scattered): the operation has no rule"
    assert reasons == [cause, f"aten.add in the model (Scattered): meets a tensor of fixed size ({cause})"]


def test_what_meets_an_input_of_the_model_says_so():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.first(x) + x.relu())

    reason = class_of(Residual(), rand(4, 6), "first.weight").reason
    assert reason == "aten.add in the model (Residual): meets a tensor of fixed size (an input of the model)"


HALF = torch.tensor([True, True, False, True, True, True, False, True])
MASKS = {
    "product": lambda x, mask: x * mask,
    "fill": lambda x, mask: x.masked_fill(~mask, 0.0),
    "choice": lambda x, mask: torch.where(mask, x, torch.zeros(())),
}


@pytest.mark.parametrize("way", MASKS)
def test_a_mask_of_truth_values_is_cut_and_hides_for_good(way):
    model = Between(lambda m, x: MASKS[way](x, m.mask))
    model.register_buffer("mask", HALF.clone())
    zero = [(0, [1, 4])]
    left, _ = left_after(model, (rand(4, 6),), first__weight=zero, first__bias=zero)
    assert (left["first.weight"], left["second.weight"]) == ((4, 6), (3, 4))  # those of the mask, and 2 more
    assert model.mask.tolist() == [True] * 4


BLENDS = {
    "lerp": torch.lerp,
    "by hand": lambda a, b, gate: a * (1 - gate) + b * gate,
    "product": lambda a, b, gate: torch.addcmul(a, b, gate, value=0.5),
    "quotient": torch.addcdiv,
}


class Highway(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way, self.first, self.out = way, nn.Linear(6, 8), nn.Linear(8, 3)
        self.inner, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.first(x)
        return self.out(BLENDS[self.way](x, self.inner(x).relu(), self.gate(x).sigmoid()))


@pytest.mark.parametrize("way", BLENDS)
def test_what_a_gate_opens_to_zeros_on_both_sides_goes(way):
    zero = [(0, [2, 5])]
    dead = {f"{name}__{kind}": zero for name in ("first", "inner") for kind in ("weight", "bias")}
    left, _ = left_after(Highway(way), (rand(4, 6),), **dead)
    assert (left["gate.weight"], left["inner.weight"], left["out.weight"]) == ((6, 6), (6, 6), (3, 6))
    dead = {name: zero for name in dead if name.startswith("inner" if way != "quotient" else "first")}
    left, _ = left_after(Highway(way), (rand(4, 6),), **dead)  # zero on one side alone
    assert left["gate.weight"] == (8, 8)
