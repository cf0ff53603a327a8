"""Rewinding: survivors have their early values again, what is pruned stays 0, a resume goes on."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, Rewinder, Thinner
from potstill.compression.pruners.element_levels import SparsityLevelParameterPruner
from potstill.compression.pruners.ranked_by_weight import L1RankedStructureParameterPruner

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def made(model, thin_at=None):
    scheduler = CompressionScheduler(model, example_inputs=X)
    pruner = SparsityLevelParameterPruner({"0.weight": 0.5})
    if thin_at is not None:
        pruner = L1RankedStructureParameterPruner(group_type="Filters", desired_sparsity=0.5, weights=["0.weight"])
    scheduler.add_policy(PruningPolicy(pruner), epochs=[3])
    scheduler.add_policy(Rewinder(), epochs=[1, 3, 5])
    if thin_at is not None:
        scheduler.add_policy(Thinner(), epochs=[thin_at])
    return scheduler


def train(scheduler, optimizer, epochs, seen=None):
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch, optimizer, 2)
        if seen is not None:
            seen[epoch] = (copy.deepcopy(scheduler.model.state_dict()), len(optimizer.state))
        for i in range(2):
            scheduler.on_minibatch_begin(epoch, i, 2, optimizer)
            optimizer.zero_grad()
            scheduler.model(X).square().mean().backward()
            scheduler.before_parameter_optimization(epoch, i, 2, optimizer)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, i, 2, optimizer)
        scheduler.on_epoch_end(epoch, optimizer)


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def test_survivors_have_their_early_values_again():
    model, seen = network(), {}
    scheduler, optimizer = made(model), sgd(model)
    train(scheduler, optimizer, range(6), seen)
    early = seen[1][0]
    for epoch in (3, 5):
        weights, momenta = seen[epoch]
        mask = scheduler.zeros_mask_dict["0.weight"].mask
        assert int((mask == 0).sum()) == 24
        assert torch.equal(weights["0.weight"], early["0.weight"] * mask)
        assert all(torch.equal(weights[name], early[name]) for name in ("0.bias", "1.weight", "3.weight", "3.bias"))
        assert momenta == 0
    assert not torch.equal(seen[4][0]["3.weight"], early["3.weight"])  # in between it trains


def test_resumed_equals_uninterrupted():
    whole = network()
    train(made(whole), sgd(whole), range(6))
    cut = network()
    scheduler, optimizer = made(cut), sgd(cut)
    train(scheduler, optimizer, range(3))
    states = copy.deepcopy((cut.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    again = network()
    scheduler, optimizer = made(again), sgd(again)
    again.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    scheduler.load_state_dict(states[2])
    train(scheduler, optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), whole.state_dict().values(), strict=True))


def test_thinning_in_between_thins_what_was_kept():
    model, seen = network(), {}
    scheduler = made(model, thin_at=4)
    train(scheduler, sgd(model), range(6), seen)
    assert model[0].out_features == 4
    kept = scheduler.recipes[0].tensors[0].keep[0]
    assert torch.equal(seen[5][0]["0.weight"], seen[1][0]["0.weight"][kept])


def test_momentum_may_stay():
    model, seen = network(), {}
    scheduler, optimizer = CompressionScheduler(model), sgd(model)
    scheduler.add_policy(Rewinder(reset_optimizer=False), epochs=[0, 2])
    train(scheduler, optimizer, range(3), seen)
    assert seen[2][1] == len(list(model.parameters()))


def test_a_state_of_other_shapes_is_refused():
    scheduler = made(network())
    state = scheduler.state_dict()
    state["policies"]["1_Rewinder"]["kept"] = {"0.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"1_Rewinder.*kept.0.weight.*shape"):
        scheduler.load_state_dict(state)
