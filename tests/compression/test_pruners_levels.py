"""Element-wise pruners that reach a sparsity."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from potstill.compression import CompressionScheduler, PrunerArgs, PruningPolicy, Window
from potstill.compression.parts.selection import count, keep_highest
from potstill.compression.pruners import AutomatedGradualPruner, SparsityLevelParameterPruner

NAME = "3.weight"
AGP_LEVELS = {
    1: [0.1, 0.2191, 0.3118, 0.3815, 0.4314, 0.4649, 0.4852, 0.4956, 0.4995, 0.5],
    2: [0.1, 0.3312, 0.45, 0.4938, 0.5],
    3: [0.1, 0.3815, 0.4852, 0.5],
}


@pytest.mark.parametrize("frequency", AGP_LEVELS)
def test_agp_levels(make_run, frequency):
    run = make_run(minibatches=2)
    run.prune(AutomatedGradualPruner(0.1, 0.5, [NAME]), Window.between(0, 10, frequency))
    found = []
    for epoch in range(10):
        run.train([epoch])
        found.append(run.zeros(NAME))
    span = (10 - 1) // frequency * frequency
    exact = [0.5 - 0.4 * (1 - epoch / span) ** 3 for epoch in range(0, 10, frequency)]
    assert [round(level, 4) for level in exact] == AGP_LEVELS[frequency]
    assert found[::frequency] == [math.floor(level * 576 + 1e-9) for level in exact]


def test_agp_of_a_thousand_weights_prunes_the_smallest(make_view):
    layer = nn.Linear(100, 10)
    pruner = AutomatedGradualPruner(0.1, 0.5, ["weight"])
    pruner.bind(layer)
    mask = pruner.masks(make_view(layer, epoch=3))["weight"]
    order = layer.weight.detach().abs().flatten().sort().indices
    assert not mask.flatten()[order[:381]].any()
    assert mask.flatten()[order[381:]].all()


def test_agp_may_start_at_zero_and_take_a_list_of_epochs(make_run):
    run = make_run().prune(AutomatedGradualPruner(0, 0.5, [NAME]), Window.at([0, 2, 3, 5]), "p")
    run.train([0])
    assert not run.scheduler.masks.of("p")
    run.train(range(1, 6))
    assert run.zeros(NAME) == 288


def test_agp_by_minibatch(make_run):
    run = make_run(minibatches=10)
    run.prune(AutomatedGradualPruner(0.1, 0.5, [NAME]), Window.between(5, 15, 3, "minibatch"))
    zeros = []
    run.train(range(2), lambda step: zeros.append(run.zeros(NAME)))
    steps = zeros[::2]
    levels = [int((0.5 - 0.4 * (1 - i / 3) ** 3) * 576 + 1e-9) for i in range(4)]
    assert steps[:5] == [0] * 5
    assert steps[5::3][:4] == levels
    assert steps[14:] == [288] * 6


def test_ties_are_pruned_by_count(make_view):
    """Distiller pruned all of a constant tensor at any level."""
    layer = nn.Linear(10, 10)
    nn.init.ones_(layer.weight)
    pruner = SparsityLevelParameterPruner({"*": 0.3})
    pruner.bind(layer)
    masks = pruner.masks(make_view(layer))
    assert int((~masks["weight"]).sum()) == 30
    assert not masks["weight"].flatten()[:30].any()
    assert int((~masks["bias"]).sum()) == 3


def test_a_level_that_takes_less_than_one_prunes_nothing(make_run):
    run = make_run().prune(SparsityLevelParameterPruner({"*": 0.01, "0.weight": 0}), Window.at([0]), "p").train([0])
    assert set(run.scheduler.masks.of("p")) == {NAME, "6.weight"}


def test_levels_of_the_policy_replace_the_pruners(make_run):
    pruner = SparsityLevelParameterPruner({NAME: 0.2})
    run = make_run().prune(pruner, Window.at([0]), "a", levels={NAME: 0.5}).prune(pruner, Window.at([0]), "b")
    run.train([0])
    assert [int((run.scheduler.masks.of(owner)[NAME] == 0).sum()) for owner in "ab"] == [288, 115]


def test_mini_batch_pruning_frequency_counts_from_the_start_of_training(make_run):
    run = make_run(minibatches=5)
    pruner = SparsityLevelParameterPruner({NAME: 0.5})
    seen = []
    pruner.masks = lambda view, inner=pruner.masks: seen.append(view.step.index) or inner(view)
    run.prune(pruner, Window.between(1, 3), mini_batch_pruning_frequency=4).train(range(4))
    assert seen == [5, 8, 10, 12]


def test_skip_first_minibatch(make_run):
    run = make_run()
    pruner = SparsityLevelParameterPruner({NAME: 0.5})
    seen = []
    pruner.masks = lambda view, inner=pruner.masks: seen.append(view.step.index) or inner(view)
    run.prune(pruner, Window.between(1, 3), skip_first_minibatch=True).train(range(4))
    assert seen == [4, 6]


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_count_is_the_floor(level, total):
    exact = level * total
    assert count(level, total) in {math.floor(exact), math.floor(exact + 1e-9)}
    assert count(1, total) == total


def test_count_is_safe_against_binary_fractions():
    assert 0.29 * 100 < 29
    assert count(0.29, 100) == 29


def test_rounding_and_multiples():
    assert [count(0.5, 7, rounding) for rounding in ("floor", "round", "ceil")] == [3, 4, 4]
    assert count(0.5, 16, multiple=3) == 6
    assert count(0.9, 8, "ceil") == 7  # never all of them below a level of 1
    assert count(0.9, 8, "ceil", multiple=4) == 4


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]), min_size=1, max_size=60)


@settings(max_examples=200)
@given(scores, st.data())
def test_selection_is_exact_stable_and_never_resurrects(values, data):
    tensor = torch.tensor(values)
    alive = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    prune = data.draw(st.integers(0, len(values)))
    keep = keep_highest(tensor, prune, alive)
    assert keep.dtype == torch.bool
    assert int((~keep).sum()) == max(prune, int((~alive).sum()))
    assert not (keep & ~alive).any()
    ranks = sorted(range(len(values)), key=lambda i: (alive[i].item(), values[i], i))
    gone = {i for i in range(len(values)) if not keep[i]}
    assert {i for i in gone if alive[i]} <= set(ranks[: len(gone)])


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="scores that are not numbers"):
        keep_highest(torch.tensor([1.0, torch.nan]), 1)


def test_a_policy_acts_on_the_parameters_of_its_own_levels(net):
    """So that it is warned about where it meets another policy, and not where the shared pruner's levels would."""
    pruner = SparsityLevelParameterPruner({"3.weight": 0.5})
    scheduler = CompressionScheduler(net)
    for name, levels in (("own", {"0.*": 0.5}), ("shared", None)):
        scheduler.add_policy(PruningPolicy(pruner, PrunerArgs(levels=levels)), Window.at([0]), name=name)
    assert [list(policy.targets()) for policy in scheduler.policies] == [["0.weight", "0.bias"], ["3.weight"]]
