"""Channel graphs: uses, classes, coverage, gates, sizes; the model stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from potstill.thinning import ThinningError, channels_text, count_macs, rule, thin, trace
from potstill.thinning.label_sets import components
from potstill.thinning.tracing import tracer
from potstill.thinning.tracing.registry import RULES

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn_a = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.bn_b = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.dw, self.bn_dw = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.c = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn_a(self.a(x)))
        x = x + self.bn_b(self.b(x))
        x = F.relu(self.c(self.bn_dw(self.dw(x))))
        return self.head(x.mean((2, 3)))


def test_same_channels() -> None:
    graph = trace(Residual(), X)
    ids = graph.channels_of("a.weight")
    assert ids.tolist() == sorted(set(ids.tolist()))
    assert 0 not in ids.tolist()
    for name, dim in (
        ("b.weight", 0),
        ("b.weight", 1),
        ("b.bias", 0),
        ("dw.weight", 0),
        ("bn_a.running_var", 0),
        ("c.weight", 1),
    ):
        assert torch.equal(graph.channels_of(name, dim), ids)
    assert not set(graph.channels_of("c.weight").tolist()) & set(ids.tolist())
    assert graph.channels_of("a.weight", 1).tolist() == [0, 0, 0]
    assert graph.channels_of("head.weight", 0).tolist() == [0, 0]
    roles = {(use.name, use.dim): use.role for use in graph.uses}
    assert roles["a.weight", 0] == roles["c.bias", 0] == roles["dw.weight", 0] == "out"
    assert roles["b.weight", 1] == "in"
    assert (roles["bn_a.weight", 0], roles["bn_a.bias", 0], roles["bn_a.running_mean", 0]) == (
        "scale",
        "shift",
        "vector",
    )


def test_classes() -> None:
    classes = trace(Residual(), X).classes()
    assert sorted((c.size, c.status) for c in classes) == [
        (2, "frozen"),
        (3, "frozen"),
        (5, "removable"),
        (6, "removable"),
    ]
    reasons = {c.size: c.reason for c in classes if c.status == "frozen"}
    assert reasons[2] == "an output of the model"
    assert reasons[3] == "aten.convolution in a (Conv2d): reads an input of fixed size"
    text = channels_text(trace(Residual(), X))
    assert "removable  a.weight[0] bn_a.weight[0] bn_a.bias[0]" in text


def test_coverage_of_the_own_chain_and_of_the_class() -> None:
    graph = trace(Residual(), X)
    own = graph.coverage("a.weight", [1, 4])
    assert {name: [(dim, i.tolist()) for dim, i in parts] for name, parts in own.items()} == {
        name: [(0, [1, 4])] for name in ("a.weight", "bn_a.weight", "bn_a.bias")
    }
    every = graph.coverage("a.weight", torch.tensor([1]), whole_class=True)
    names = {"a.weight", "b.weight", "b.bias", "dw.weight", "dw.bias"}
    assert set(every) == names | {f"{bn}.{part}" for bn in ("bn_a", "bn_b", "bn_dw") for part in ("weight", "bias")}
    with pytest.raises(ThinningError, match="'nothing' is no parameter"):
        graph.coverage("nothing", [0])
    with pytest.raises(ThinningError, match="has 6 channels in dimension 0; got indices"):
        graph.coverage("a.weight", [6])


def test_gates_scale_each_producer_once() -> None:
    graph = trace(Residual(), X)
    channel = int(graph.channels_of("a.weight")[2])
    scaled = {(s.name, s.dim, s.index) for s in graph.scales([channel])}
    assert scaled == {(f"{bn}.{part}", 0, 2) for bn in ("bn_a", "bn_b", "bn_dw") for part in ("weight", "bias")}
    plain = int(graph.channels_of("c.weight")[1])
    assert {(s.name, s.index, s.channel) for s in graph.scales([plain])} == {
        ("c.weight", 1, plain),
        ("c.bias", 1, plain),
    }


def test_sizes_are_those_of_the_thinned_model() -> None:
    model = Residual().eval()
    graph = trace(model, X)
    alive = torch.ones(graph.count + 1, dtype=torch.bool)
    names = [name for name, _ in model.named_parameters()]
    assert int(graph.parameter_count(alive, names)) == sum(p.numel() for p in model.parameters())
    counter = FlopCounterMode(display=False)
    with counter:
        model(X[:1])
    assert int(graph.macs(alive)) == counter.get_total_flops() / 2 == count_macs(model, X)
    with torch.no_grad():
        for name, parts in graph.coverage("c.weight", [0, 3]).items():
            model.get_parameter(name).index_fill_(0, parts[0][1].to(X.device), 0)
    alive[graph.channels_of("c.weight")[[0, 3]]] = False
    recipe = thin(model, X)
    assert (
        int(graph.parameter_count(alive, names)) == recipe.parameters[1] == sum(p.numel() for p in model.parameters())
    )
    assert int(graph.macs(alive)) == recipe.macs[1]
    half = torch.full((graph.count + 1,), 0.5, requires_grad=True)
    graph.macs(half).backward()
    assert half.grad is not None
    assert half.grad.abs().sum() > 0
    with pytest.raises(ThinningError, match="one value per channel id"):
        graph.macs(torch.ones(3))


def test_model_is_untouched() -> None:
    model = Residual().train()
    model.bn_b.eval()
    state, attributes = copy.deepcopy(model.state_dict()), [dict(vars(m)).keys() for m in model.modules()]
    random = torch.get_rng_state()
    trace(model, X)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert [dict(vars(m)).keys() for m in model.modules()] == attributes
    assert torch.equal(random, torch.get_rng_state())
    assert [m.training for m in model.modules()].count(False) == 1


def test_an_operation_without_a_rule_freezes_and_a_rule_from_outside_helps() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.ops.potstill_test.double_it(self.a(x)))

    @torch.library.custom_op("potstill_test::double_it", mutates_args=(), schema="(Tensor x) -> Tensor")
    def double_it(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double_it.register_fake(torch.empty_like)
    x = torch.randn(3, 4)
    reasons = [c.reason for c in trace(Net(), x).classes() if c.size == 6]
    assert "potstill_test.double_it in the model (Net): the operation has no rule" in reasons

    @rule(torch.ops.potstill_test.double_it)
    def follow(call) -> None:
        call.emit(
            plane.but(value=None if plane.value is None else plane.value * 2) for plane in call.planes(call.args[0])
        )

    try:
        model = Net()
        assert [c.status for c in trace(model, x).classes() if c.size == 6] == ["removable"]
        with torch.no_grad():
            model.a.weight[:2], model.a.bias[:2] = 0, 0
        assert thin(model, x).tensors[0].new_shape == (4, 4)
    finally:
        del RULES[torch.ops.potstill_test.double_it]


def test_an_error_in_a_rule_freezes_for_users_and_is_raised_for_tests(monkeypatch) -> None:
    def wrong(call) -> None:
        raise KeyError("not thought of")

    monkeypatch.setitem(RULES, torch.ops.aten.tanh, wrong)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    with pytest.raises(tracer.RuleError, match=r"aten.tanh in 1 \(Tanh\): KeyError: 'not thought of'"):
        trace(net, torch.randn(3, 4))
    monkeypatch.setattr(tracer, "FREEZES_ON_ERROR", True)
    hidden = [group for group in trace(net, torch.randn(3, 4)).classes() if group.size == 6]
    assert all(group.status == "frozen" for group in hidden)
    assert "the rule does not understand this call (KeyError: 'not thought of')" in hidden[0].reason


def test_components() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(0, 60, (40, 2), generator=generator)
    root = list(range(60))
    for a, b in pairs.tolist():
        low, high = sorted((root[a], root[b]))
        root = [low if r == high else r for r in root]
    assert components(60, [(pairs[:20, 0], pairs[:20, 1]), (pairs[20:, 0], pairs[20:, 1])]).tolist() == root


def test_model_that_does_not_run() -> None:
    with pytest.raises(ThinningError, match="the model does not run on the example inputs: RuntimeError"):
        trace(nn.Linear(4, 2), torch.randn(3, 5))
