"""Gradients, rates and parameters of kinds that are seldom seen."""

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, LRPolicy, PruningPolicy, RegularizationPolicy
from potstill.compression.pruners import GlobalMagnitudePruner, RigLPruner
from potstill.compression.regularizers import (
    GroupLassoRegularizer,
    GroupVarianceRegularizer,
    L0Regularizer,
    L1Regularizer,
)


def embedded():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 6, sparse=True), nn.Flatten(), nn.Linear(18, 2))


@pytest.mark.parametrize(
    ("regularizer", "penalty"),
    [
        (L1Regularizer({"0.weight": 0.1}), lambda w: 0.1 * w.abs().sum()),
        (GroupLassoRegularizer({"0.weight": (0.1, "Rows")}), lambda w: 0.1 * w.norm(dim=0).sum()),
    ],
)
def test_sparse_gradients_take_terms(regularizer, penalty):
    model = embedded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = CompressionScheduler(model)
    scheduler.add_policy(RegularizationPolicy(regularizer), starting_epoch=0, ending_epoch=1)
    words = torch.randint(10, (4, 3))
    (model(words).sum() + penalty(model[0].weight)).backward()
    expected = model[0].weight.grad.to_dense().clone()
    optimizer.zero_grad()
    scheduler.on_minibatch_begin(0, 0, 2, optimizer)
    scheduler.before_backward_pass(0, 0, 2, model(words).sum(), optimizer).backward()
    torch.testing.assert_close(model[0].weight.grad, expected)


def test_sparse_gradients_tell_what_comes_to_life():
    model = embedded()
    scheduler = CompressionScheduler(model)
    scheduler.add_policy(PruningPolicy(RigLPruner(["0.weight"], 0.5)), starting_epoch=0, ending_epoch=2)
    for epoch in range(2):
        scheduler.on_epoch_begin(epoch)
        model(torch.randint(10, (4, 3))).sum().backward()
    assert int((model[0].weight == 0).sum()) == 30


def test_rates_that_are_tensors():
    def rates(lr):
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        scheduler, tensor = CompressionScheduler(model), optimizer.param_groups[0]["lr"]
        steps = torch.optim.lr_scheduler.StepLR, torch.optim.lr_scheduler.ExponentialLR
        for start, cls in zip((0, 3), steps, strict=True):
            arguments = (1, 0.5) if start == 0 else (0.9,)
            policy = LRPolicy(lambda o, cls=cls, arguments=arguments: cls(o, *arguments), optimizer)
            scheduler.add_policy(policy, starting_epoch=start, ending_epoch=start + 3)
        found = []
        for epoch in range(6):
            scheduler.on_epoch_begin(epoch, optimizer)
            found.append(float(optimizer.param_groups[0]["lr"]))
            scheduler.on_epoch_end(epoch, optimizer)
            scheduler.load_state_dict(scheduler.state_dict())
        assert not isinstance(lr, torch.Tensor) or optimizer.param_groups[0]["lr"] is tensor
        return found

    assert rates(torch.tensor(0.1)) == pytest.approx(rates(0.1))


def test_groups_that_the_optimizer_got_later_are_told():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    scheduler = CompressionScheduler(model)
    policy = LRPolicy(lambda o: torch.optim.lr_scheduler.StepLR(o, 1), optimizer)
    scheduler.add_policy(policy, starting_epoch=0, ending_epoch=2)
    optimizer.add_param_group({"params": [model.bias]})
    with pytest.raises(ValueError, match="the optimizer has 2 parameter groups now, and had 1"):
        scheduler.on_epoch_begin(0, optimizer)


@pytest.mark.parametrize(
    "regularizer",
    [
        L1Regularizer({"weight": 0.1}),
        GroupLassoRegularizer({"weight": (0.1, "Rows")}),
        GroupVarianceRegularizer({"weight": (0.1, "Channels")}),
    ],
)
def test_complex_parameters_have_no_penalties(regularizer):
    scheduler = CompressionScheduler(nn.Conv2d(2, 3, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="weight is complex, and penalties are of real numbers"):
        scheduler.add_policy(RegularizationPolicy(regularizer), starting_epoch=0, ending_epoch=1)


def test_empty_parameters_take_no_part_in_a_ranking():
    model = nn.Linear(4, 4)
    model.register_parameter("empty", nn.Parameter(torch.zeros(0, 3)))
    scheduler = CompressionScheduler(model)
    scheduler.add_policy(PruningPolicy(GlobalMagnitudePruner(0.5, ["weight", "empty"])), epochs=[0])
    scheduler.on_epoch_begin(0)
    assert int((model.weight == 0).sum()) == 8


def test_gates_need_something_to_scale():
    scheduler = CompressionScheduler(Last(), torch.randn(2, 5, 3))
    policy = RegularizationPolicy(L0Regularizer(["rnn.weight_hh_l0"], strength=0.1))
    with pytest.raises(ValueError, match="nothing makes these channels that a gate could scale"):
        scheduler.add_policy(policy, starting_epoch=0, ending_epoch=1)


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("name", ["parametrizations.weight.original1", "weight_v"])
def test_gates_do_not_go_on_directions(name):
    norm = nn.utils.parametrizations.weight_norm if name[0] == "p" else nn.utils.weight_norm
    model = nn.Sequential(norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 2))
    policy = RegularizationPolicy(L0Regularizer([f"0.{name}"], strength=0.1))
    with pytest.raises(ValueError, match=r"directions of a weight norm.*name the lengths, 0\."):
        CompressionScheduler(model, torch.zeros(2, 6)).add_policy(policy, starting_epoch=0, ending_epoch=1)
    lengths = f"0.{name}".replace("original1", "original0").replace("weight_v", "weight_g")
    policy = RegularizationPolicy(L0Regularizer([lengths], strength=0.1))
    CompressionScheduler(model, torch.zeros(2, 6)).add_policy(policy, starting_epoch=0, ending_epoch=1)


def test_strengths_are_as_exact_as_the_weights():
    model = nn.Linear(5, 4).double()
    for regularizer, expected in (
        (L1Regularizer({"weight": 0.1, "bias": 0.3}), 0.1 * model.weight.abs().sum() + 0.3 * model.bias.abs().sum()),
        (GroupLassoRegularizer({"weight": (0.1, "Rows")}), 0.1 * model.weight.norm(dim=0).sum()),
    ):
        regularizer.bind(model)
        if hasattr(regularizer, "start"):
            regularizer.start()
        found = regularizer.loss(dict(model.named_parameters()), None)
        assert float(found) == pytest.approx(float(expected), rel=1e-14)
