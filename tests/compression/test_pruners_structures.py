"""Pruners that rank structures by their weights."""

import logging

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, Window
from potstill.compression.pruners import (
    L1RankedStructureParameterPruner,
    L1RankedStructureParameterPruner_AGP,
    L2RankedStructureParameterPruner,
    RandomLevelStructureParameterPruner,
)

FIRST, SECOND = "0.weight", "3.weight"


def keep_of(pruner, model, view):
    pruner.bind(model)
    return pruner.masks(view)


def dead(mask, dim=0):
    return (~mask.transpose(0, dim).flatten(1).any(1)).nonzero().flatten().tolist()


@pytest.fixture
def conv():
    """Six filters of two channels whose L1 and L2 orders differ."""
    layer = nn.Conv2d(2, 6, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 0], [2, 2], [0.1, 0.2], [-4, 4], [1, -1], [1.6, 0]]).view(6, 2, 1, 1)
    return layer


def test_l1_and_l2_take_the_lowest(conv, make_view):
    l1 = keep_of(L1RankedStructureParameterPruner(0.5, ["weight"]), conv, make_view(conv))["weight"]
    l2 = keep_of(L2RankedStructureParameterPruner(0.5, ["weight"]), conv, make_view(conv))["weight"]
    assert dead(l1) == [2, 4, 5]  # 0.3, 2, 1.6 in all
    assert dead(l2) == [2, 4, 5]
    l1 = keep_of(L1RankedStructureParameterPruner(0.34, ["weight"]), conv, make_view(conv))["weight"]
    l2 = keep_of(L2RankedStructureParameterPruner(0.34, ["weight"]), conv, make_view(conv))["weight"]
    assert dead(l1) == [2, 5]
    assert dead(l2) == [2, 4]  # sqrt 2 < 1.6


@pytest.mark.parametrize(("level", "number"), [(0.1, 0), (0.16, 0), (0.17, 1), (0.5, 3), (0.99, 5), (1.0, 6)])
def test_counts_are_floors(conv, make_view, level, number):
    assert (
        len(dead(keep_of(L1RankedStructureParameterPruner(level, ["weight"]), conv, make_view(conv))["weight"]))
        == number
    )


def test_group_size_and_rounding(conv, make_view):
    def dead_of(**more):
        return dead(keep_of(L1RankedStructureParameterPruner(0.6, ["weight"], **more), conv, make_view(conv))["weight"])

    assert len(dead_of()) == 3
    assert len(dead_of(rounding_fn="ceil")) == 4
    assert dead_of(group_size=2) == [4, 5]  # pairs weigh 7, 8.3 and 3.6; 3 is rounded down to 2
    assert len(dead_of(group_size=3)) == 3


def test_channels_rows_and_cols(make_view):
    linear = nn.Linear(3, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 5, 2], [1, 5, 2.5]])
    rows = keep_of(L1RankedStructureParameterPruner(0.4, ["weight"], "Rows"), linear, make_view(linear))["weight"]
    cols = keep_of(L1RankedStructureParameterPruner(0.5, ["weight"], "Cols"), linear, make_view(linear))["weight"]
    assert rows.int().tolist() == [[0, 1, 1], [0, 1, 1]]
    assert cols.int().tolist() == [[0, 0, 0], [1, 1, 1]]


def test_blocks_of_eight_channels(make_view):
    conv = nn.Conv2d(16, 4, 1, bias=False)
    pruner = L1RankedStructureParameterPruner_AGP(0.05, 0.5, ["weight"], "Blocks", kwargs={"block_shape": [1, 8, 1, 1]})
    mask = keep_of(pruner, conv, make_view(conv, 9))["weight"]
    blocks = mask.view(4, 2, 8)
    assert int((~blocks.any(2)).sum()) == 4
    assert (blocks.all(2) | ~blocks.any(2)).all()
    sizes = conv.weight.detach().abs().view(4, 2, 8).sum(2)
    assert sizes[~blocks.any(2)].max() < sizes[blocks.any(2)].min()


def test_agp_ends_at_the_final_sparsity_and_may_start_at_zero(make_run):
    run = make_run().prune(L1RankedStructureParameterPruner_AGP(0, 0.5, [SECOND]), Window.between(0, 5, 2), "p")
    run.train([0])
    assert not run.scheduler.masks.of("p")
    run.train(range(1, 5))
    assert len(dead(run.weight(SECOND) != 0)) == 4


def test_what_is_hidden_stays_hidden(make_run):
    run = make_run(minibatches=2).prune(
        L1RankedStructureParameterPruner_AGP(0.1, 0.9, [SECOND]), Window.between(0, 8), "p"
    )
    gone: set = set()
    for epoch in range(8):
        run.train([epoch])
        now = set(dead(run.weight(SECOND) != 0))
        assert gone <= now
        gone = now
    assert len(gone) == 7


def test_a_filter_dies_with_its_bias_and_norm(make_run):
    """So the channel is zero in training and in evaluation, and thinning is exact."""
    run = make_run().train([0])
    run.prune(L1RankedStructureParameterPruner(0.5, [FIRST]), Window.at([1]), "p").train([1])
    channel = dead(run.weight(FIRST) != 0)
    assert len(channel) == 4
    out = run.model.eval()[:3](torch.randn(2, 3, 8, 8))
    assert not out[:, channel].any()
    assert set(run.scheduler.masks.of("p")) == {FIRST, "0.bias", "1.weight", "1.bias"}


def test_without_a_graph_filters_go_alone_and_it_is_said(make_run, caplog):
    with caplog.at_level(logging.WARNING):
        run = make_run(traced=False).prune(L1RankedStructureParameterPruner(0.5, [FIRST]), Window.between(0, 3), "p")
        run.train(range(3))
    assert set(run.scheduler.masks.of("p")) == {FIRST}
    assert [record.message for record in caplog.records].count(
        "no example_inputs: pruned filters leave their biases and norms alone"
    ) == 1


def test_forward_masks_spare_norms_until_they_are_kept(make_run):
    """A norm that lost weight and bias gets no gradient through its ReLU and would never return."""
    run = make_run().prune(
        L1RankedStructureParameterPruner(0.5, [FIRST]),
        Window.between(0, 2),
        "p",
        mask_on_forward_only=True,
        keep_mask=True,
    )
    run.train([0])
    assert set(run.scheduler.masks.of("p")) == {FIRST}
    run.train([1])
    assert set(run.scheduler.masks.of("p")) == {FIRST, "0.bias", "1.weight", "1.bias"}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.a(x)
        return self.head(torch.relu(x + self.norm(self.b(x))).mean((2, 3)))


def prune(model, pruner, window=None):
    scheduler = CompressionScheduler(model, torch.zeros(1, 3, 4, 4))
    scheduler.add_policy(PruningPolicy(pruner), window or Window.at([0]), name="p")
    scheduler.on_epoch_begin(0)
    return scheduler


def test_leader_decides_for_all():
    torch.manual_seed(0)
    model = Residual()
    prune(model, L1RankedStructureParameterPruner(0.5, ["b.weight", "a.weight"], group_dependency="Leader"))
    lowest = model.b.weight.detach()
    assert dead(model.a.weight != 0) == dead(lowest != 0)
    assert len(dead(lowest != 0)) == 3


def test_leader_with_other_counts_is_refused(net):
    with pytest.raises(ValueError, match=r"Leader 0.weight decides over 8 structures, but 6.weight has 4"):
        prune(net, L1RankedStructureParameterPruner(0.5, [FIRST, "6.weight"], group_dependency="Leader"))
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    args = {"weights": [FIRST, "6.weight"], "group_type": "Filters", "group_dependency": "Leader"}
    assert [where for where, _ in L1RankedStructureParameterPruner.problems(args, shapes)] == ["weights.6.weight"]


def test_coupled_channels_are_ranked_as_one_and_die_everywhere():
    torch.manual_seed(0)
    model = Residual()
    scores = model.a.weight.detach().flatten(1).abs().mean(1) + model.b.weight.detach().flatten(1).abs().mean(1)
    prune(model, L1RankedStructureParameterPruner(0.5, ["a.weight"], "Coupled"))
    expected = sorted(scores.argsort()[:3].tolist())
    assert dead(model.a.weight != 0) == dead(model.b.weight != 0) == expected
    for vector in (model.a.bias, model.b.bias, model.norm.weight, model.norm.bias):
        assert not vector[expected].any()
    x = model.a(torch.randn(2, 3, 4, 4))
    assert not torch.relu(x + model.norm(model.b(x)))[:, expected].any()


def test_coupled_is_gradual_and_needs_a_graph(net):
    torch.manual_seed(0)
    model = Residual()
    scheduler = prune(
        model,
        L1RankedStructureParameterPruner_AGP(0.2, 0.7, ["a.weight", "b.weight", "head.weight"], "Coupled"),
        Window.between(0, 3),
    )
    first = set(dead(model.a.weight != 0))
    scheduler.on_epoch_begin(2)
    assert (len(first), len(dead(model.a.weight != 0))) == (1, 4)
    assert first <= set(dead(model.a.weight != 0))
    with pytest.raises(
        ValueError, match=r"Coupled needs a weight of 2 dimensions or more; norm.weight has shape \(6,\)"
    ):
        prune(Residual(), L1RankedStructureParameterPruner(0.5, ["*.weight"], "Coupled"))
    policy = PruningPolicy(L1RankedStructureParameterPruner(0.5, [FIRST], "Coupled"))
    with pytest.raises(ValueError, match="Coupled needs to know what belongs together: give CompressionScheduler"):
        CompressionScheduler(net).add_policy(policy, Window.at([0]))


def test_transposed_convolutions_lose_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.ReLU(), nn.Conv2d(6, 2, 1))
    scheduler = CompressionScheduler(model, torch.zeros(1, 3, 4, 4))
    scheduler.add_policy(PruningPolicy(L1RankedStructureParameterPruner(0.5, ["0.weight"])), Window.at([0]))
    scheduler.on_epoch_begin(0)
    gone = dead(model[0].weight != 0, dim=1)
    assert len(gone) == 3
    assert not model[0](torch.randn(1, 3, 4, 4))[:, gone].any()


def test_random_level_draws_by_weight_and_step(make_view):
    model = nn.Sequential(nn.Linear(4, 100), nn.Linear(100, 100))
    pruner = RandomLevelStructureParameterPruner((0.2, 0.6), ["*.weight"])
    pruner.bind(model)
    counts = [
        tuple(len(dead(mask)) for mask in pruner.masks(make_view(model, epoch, owner="p")).values())
        for epoch in (0, 1, 2, 0)
    ]
    assert counts[0] == counts[3]
    assert len({n for pair in counts[:3] for n in pair}) > 3
    assert all(20 <= n <= 60 for pair in counts for n in pair)


def test_noise_changes_the_order_at_its_probability(make_view):
    model = nn.Linear(4, 50)
    pruner = L1RankedStructureParameterPruner(0.5, ["weight"], noise=0.5)
    plain = dead(keep_of(L1RankedStructureParameterPruner(0.5, ["weight"]), model, make_view(model))["weight"])
    pruner.bind(model)
    same = [dead(pruner.masks(make_view(model, epoch, owner="p"))["weight"]) == plain for epoch in range(100)]
    assert 30 <= sum(same) <= 70
    assert same == [dead(pruner.masks(make_view(model, epoch, owner="p"))["weight"]) == plain for epoch in range(100)]


def test_fold_batchnorm_ranks_what_the_norm_lets_through(make_run):
    """The mask lands on the real weight, also at minibatches (Distiller masked a temporary one)."""
    run = make_run()
    norm = run.model[1]
    norm.weight.data = torch.tensor([1e-3, 1, 1, 1, -1e-3, 1, 1, 1])
    norm.running_var[2] = 1e12
    run.prune(
        L1RankedStructureParameterPruner(0.4, [FIRST]),
        Window.at([0]),
        "p",
        fold_batchnorm=True,
        mini_batch_pruning_frequency=1,
    )
    run.scheduler.on_epoch_begin(0, run.optimizer, 3)
    assert dead(run.weight(FIRST) != 0) == [0, 2, 4]
    run.train([0])
    assert dead(run.weight(FIRST) != 0) == [0, 2, 4]
    with pytest.raises(ValueError, match="fold_batchnorm needs to know what follows what"):
        make_run(traced=False).prune(
            L1RankedStructureParameterPruner(0.4, [FIRST]), Window.at([0]), fold_batchnorm=True
        )


def test_fold_batchnorm_ranks_hidden_filters_by_their_own_scale(make_run):
    """Soft masks hide the scale too; with it a hidden filter would rank last for ever."""
    run = make_run(minibatches=3)
    run.optimizer.param_groups[0].update(lr=0.0)
    run.model[1].momentum = 0.0
    run.model[0].weight.data.fill_(1.0)
    soft = {"mini_batch_pruning_frequency": 1, "mask_on_forward_only": True, "use_double_copies": True}
    pruner = L1RankedStructureParameterPruner(0.5, [FIRST])
    run.prune(pruner, Window.at([0]), "p", fold_batchnorm=True, **soft)
    small, seen = [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]], []
    for minibatch, filters in enumerate(small):
        run.scheduler.masks.dense("1.weight").fill_(1.0)[filters] = 0.1
        if minibatch == 0:
            run.scheduler.on_epoch_begin(0, run.optimizer, 3)
        run.scheduler.on_minibatch_begin(0, minibatch, 3, run.optimizer)
        seen.append(dead(run.weight(FIRST) != 0))
    assert seen == small


PROBLEMS = [
    ({"group_type": "2D"}, "group_type", "2D needs a weight of 3 dimensions or more; 6.weight has shape (4, 32)"),
    ({"group_type": "Blocks"}, "group_type", "Blocks needs kwargs"),
    ({"kwargs": {"block_shape": [1, 8, 1, 1]}}, "kwargs", "kwargs are for Blocks; Filters takes none"),
    ({"group_size": 3}, "group_size", "3 does not divide 6.weight's 4 structures"),
    ({"initial_sparsity": 0.5, "final_sparsity": 0.5}, "final_sparsity", "0.5 must be above initial_sparsity 0.5"),
]


@pytest.mark.parametrize(("given", "where", "message"), PROBLEMS)
def test_problems_of_schedules(net, given, where, message):
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    args = {"weights": ["6.weight"], "group_type": "Filters", **given}
    found = list(L1RankedStructureParameterPruner.problems(args, shapes))
    assert len(found) == 1
    assert found[0][0] == where
    assert message in found[0][1]


def test_a_level_range_the_wrong_way_round():
    args = {"sparsity_range": (0.5, 0.2), "weights": [], "group_type": "Filters"}
    assert list(RandomLevelStructureParameterPruner.problems(args, {})) == [
        ("sparsity_range", "0.5 must not be above 0.2")
    ]
