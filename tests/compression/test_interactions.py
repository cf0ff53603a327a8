"""Distiller's defects 9 to 24, in which policies damaged each other or numbers surprised: each shown to be gone here.

The numbers are those of the project's list of Distiller's defects; "Was" says what Distiller did.

 9  test_9_modes_belong_to_the_policy_not_to_all_parameters
10  test_10_two_dense_copies_of_one_parameter
11  test_11_discarding_masks_leaves_those_of_others
12  test_12_a_threshold_leaves_masks_of_pruners_alone, test_12_a_threshold_drops_no_mask_on_the_way
13  test_13_a_policy_has_one_window, test_13_an_instance_acts_at_the_times_of_each_entry_that_names_it
14  test_14_two_pruners_on_one_parameter_combine
15  test_15_ties_are_pruned_by_count
16  test_16_mean_activation_and_gradient_rank_in_the_intended_direction
17  test_17_a_leader_decides_anew_each_time
18  test_18_a_block_is_the_documented_one
19  test_19_rows_and_cols_mean_the_same_everywhere
20  test_20_a_penalty_zeroes_without_its_strength_as_a_cut_off
21  test_21_absolute_epochs_are_kept_and_told, and in tests/command/test_dry_run.py
    test_21_the_rate_after_a_late_start_is_shown
22  test_22_... in tests/command/test_best_and_splits.py; test_validation_images_are_never_augmented_nor_shuffled and
    test_no_validation_split_means_the_test_images in tests/models/test_splits.py
23  test_23_folding_and_minibatches_mask_the_real_weight
24  test_24_thinning_preserves_outputs, test_a_folded_constant_is_not_masked_away
"""

import logging

import pytest
import torch
from torch import nn

from potstill.compression import (
    CompressionScheduler,
    LRPolicy,
    PruningPolicy,
    RegularizationPolicy,
    RegularizerArgs,
    Thinner,
    Window,
    dict_config,
)
from potstill.compression.parts.structures import find_group
from potstill.compression.pruners import (
    ActivationMeanRankedFilterPruner,
    AutomatedGradualPruner,
    GradientRankedFilterPruner,
    L1RankedStructureParameterPruner,
    SparsityLevelParameterPruner,
)
from potstill.compression.regularizers import GroupLassoRegularizer, L1Regularizer
from potstill.compression.sparsity_tables import sparsity_table

FIRST, NAME, LAST = "0.weight", "3.weight", "6.weight"
SOFT = {"mask_on_forward_only": True}
COPY = {"mask_on_forward_only": True, "use_double_copies": True}


def level(value, name=NAME):
    return SparsityLevelParameterPruner({name: value})


def test_9_modes_belong_to_the_policy_not_to_all_parameters(make_run):
    """Was: Masker flags are per parameter and global; last policy to activate wins for all parameters."""
    run = make_run().prune(level(0.5), Window.between(0, 5), "hard")
    run.prune(level(0.5, LAST), Window.between(0, 5), "soft", **SOFT).train([0])
    assert run.scheduler.masks[NAME].owners["hard"].mode == "hard"
    assert run.scheduler.masks[LAST].owners["soft"].mode == "forward"
    assert not run.scheduler.masks[FIRST].owners
    assert (run.zeros(NAME), run.zeros(LAST)) == (288, 64)
    below = [run.scheduler.masks.dense(name)[run.weight(name) == 0] for name in (NAME, LAST)]
    assert [bool(values.any()) for values in below] == [False, True]


def test_10_two_dense_copies_of_one_parameter(make_run):
    """Was: Second double-copy policy in an epoch backs up already masked weights."""
    run = make_run()
    run.optimizer.param_groups[0].update(lr=0.0)
    before = run.weight(NAME).detach().clone()
    run.prune(level(0.3), Window.between(0, 2), "a", **COPY).prune(level(0.6), Window.between(0, 2), "b", **COPY)
    run.train([0, 1])
    assert run.zeros(NAME) == int(0.6 * 576)
    run.train([2])
    assert torch.equal(run.weight(NAME), before)


def test_11_discarding_masks_leaves_those_of_others(make_run):
    """Was: `discard_masks_at_minibatch_end` clears all policies' masks."""
    run = make_run().prune(level(0.5), Window.between(0, 5), "stays")
    run.prune(level(0.8), Window.between(0, 5), "goes", discard_masks_at_minibatch_end=True, **COPY).train([0])
    assert set(run.scheduler.masks[NAME].owners) == {"stays"}
    assert run.zeros(NAME) == 288


@pytest.mark.parametrize("regularizer_first", [True, False])
def test_12_a_threshold_leaves_masks_of_pruners_alone(make_run, regularizer_first):
    """Was: Thresholding regularizer replaces and then drops pruner masks; later pruners end at 0 %."""
    run = make_run()
    add = [
        lambda: run.scheduler.add_policy(
            RegularizationPolicy(L1Regularizer({NAME: 1e-3}, "Max")), Window.between(0, 3), name="r"
        ),
        lambda: run.prune(AutomatedGradualPruner(0.1, 0.5, [NAME]), Window.between(1, 5), "p"),
    ]
    for act in add if regularizer_first else add[::-1]:
        act()
    run.train(range(8))
    assert run.zeros(NAME) == 288


def test_12_a_threshold_drops_no_mask_on_the_way(make_run):
    """The same within the common epochs: what the pruner hid stays hidden at every minibatch."""
    run = make_run().prune(AutomatedGradualPruner(0.1, 0.5, [NAME]), Window.between(0, 4), "p")
    run.scheduler.add_policy(RegularizationPolicy(L1Regularizer({NAME: 1e-9}, "Max")), Window.between(0, 4), name="r")
    zeros = []
    run.train(range(5), lambda step: zeros.append(run.zeros(NAME)))
    assert zeros == [57] * 6 + [219] * 6 + [279] * 6 + [288] * 12


def test_13_a_policy_has_one_window(make_run):
    """Was: The same policy object added twice: first registration takes the second's range."""
    policy = PruningPolicy(level(0.5))
    scheduler = make_run().scheduler
    scheduler.add_policy(policy, epochs=[0])
    with pytest.raises(ValueError, match="this policy was added before: make a new one for another window"):
        scheduler.add_policy(policy, epochs=[3])


def test_13_an_instance_acts_at_the_times_of_each_entry_that_names_it(make_run):
    """The same in schedules, where each `policies` entry makes a policy: pruner and thinner named twice act twice."""
    run = make_run()
    pruner = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.25, "weights": [FIRST]}
    thinner = {"class": "FilterRemover", "thinning_func_str": "remove_filters", "arch": "any", "dataset": "any"}
    entries = [({kind: {"instance_name": kind}}, epoch) for epoch in (0, 2) for kind in ("pruner", "extension")]
    schedule = {
        "pruners": {"pruner": pruner},
        "extensions": {"extension": thinner},
        "policies": [{**entry, "epochs": [epoch]} for entry, epoch in entries],
    }
    dict_config(run.model, run.optimizer, schedule, run.scheduler)
    filters = []
    for epoch in range(4):
        run.train([epoch])
        filters.append(run.model[0].out_channels)
    assert filters == [6, 6, 5, 5]


def test_14_two_pruners_on_one_parameter_combine(make_run):
    """Was: Two pruners on one tensor: masks not combined."""
    run = make_run().prune(L1RankedStructureParameterPruner(0.25, [NAME]), Window.at([1]), "filters")
    run.prune(L1RankedStructureParameterPruner(0.25, [NAME], "Channels"), Window.at([2]), "channels").train(range(4))
    alive = run.weight(NAME) != 0
    assert (alive.sum((1, 2, 3)) == 0).sum() == (alive.sum((0, 2, 3)) == 0).sum() == 2
    assert int(alive.sum()) == 6 * 6 * 9


def test_15_ties_are_pruned_by_count(make_run):
    """Was: Constant tensor -> 100 % at any level; `'*'` levels wipe freshly initialised BN weights."""
    run = make_run()
    nn.init.constant_(run.model[3].weight, 0.5)
    run.optimizer.param_groups[0].update(lr=0.0)
    run.prune(SparsityLevelParameterPruner({"*": 0.25}), Window.at([0]), "p").train([0])
    assert run.zeros(NAME) == 144
    assert run.zeros("1.weight") == 2


def test_16_mean_activation_and_gradient_rank_in_the_intended_direction(make_run):
    """Was: `ActivationMeanRanked*` removes the most active filters; `GradientRanked*` ranks by signed sum."""
    run = make_run().prune(ActivationMeanRankedFilterPruner(0.25, [FIRST]), Window.at([1]), "a")
    run.model[1].bias.data = torch.tensor([5.0, -5, 5, 5, 5, -4, 5, 5])
    run.train([0, 1])
    assert (run.weight(FIRST).flatten(1) == 0).all(1).nonzero().flatten().tolist() == [1, 5]
    pruner = GradientRankedFilterPruner(0.25, [NAME])
    pruner.bind(run.model)
    weight = run.weight(NAME)
    pulls = torch.tensor([-9.0, 3, 0.1, -0.2, 4, -5, 6, 7])
    factors = pulls / weight.detach().flatten(1).square().sum(1)
    (weight * (factors.view(-1, 1, 1, 1) * weight.detach())).sum().backward()
    assert pruner.score(NAME, find_group("Filters"), None).float().tolist() == pytest.approx(pulls.abs().tolist(), 1e-3)
    pruner.release()


def test_17_a_leader_decides_anew_each_time(make_run):
    """Was: `Leader` map cached for ever when the level is constant."""
    run = make_run()
    pruner = L1RankedStructureParameterPruner(0.25, [FIRST, NAME], group_dependency="Leader")
    run.prune(pruner, Window.between(0, 2), "p", **COPY).train([0])
    before = (run.weight(NAME).flatten(1) == 0).all(1)
    with torch.no_grad():
        run.scheduler.masks.dense(FIRST)[before] *= 1e3
    run.train([1])
    after = (run.weight(NAME).flatten(1) == 0).all(1)
    assert int(after.sum()) == 2
    assert not (before & after).any()


def test_18_a_block_is_the_documented_one():
    """Was: `Blocks` groups differ from the documented block."""
    weight = torch.arange(4 * 4).view(4, 4, 1, 1)
    blocks = find_group("Blocks", {"block_shape": [2, 2, 1, 1]}).split(weight).tolist()
    assert blocks == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    model = nn.Sequential(nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        model[0].weight.fill_(1)[2:, :2] = 0.5  # one block is smaller; no run of channels of one filter is smallest
    scheduler = CompressionScheduler(model)
    pruner = L1RankedStructureParameterPruner(0.25, ["0.weight"], "Blocks", kwargs={"block_shape": [2, 2, 1, 1]})
    scheduler.add_policy(PruningPolicy(pruner), epochs=[0])
    scheduler.on_epoch_begin(0)
    assert model[0].weight.flatten(1).tolist() == [[1, 1, 1, 1]] * 2 + [[0, 0, 1, 1]] * 2


def test_19_rows_and_cols_mean_the_same_everywhere(net):
    """Was: `Rows`/`Cols` mean different axes in pruners, tables, regularizers."""
    scheduler = CompressionScheduler(net)
    scheduler.add_policy(PruningPolicy(L1RankedStructureParameterPruner(0.25, [LAST], "Rows")), epochs=[0])
    scheduler.on_epoch_begin(0)
    inputs = (net[6].weight == 0).all(0)
    assert int(inputs.sum()) == 8
    row = sparsity_table(net).set_index("Name").loc[LAST]
    assert row["Rows (%)"] == 25
    assert row["Cols (%)"] == 0
    lasso = GroupLassoRegularizer({LAST: (1e-6, "Rows")}, "Max")
    lasso.bind(net)
    assert torch.equal(lasso.threshold({LAST: net[6].weight.detach()})[LAST][0] == 0, inputs)


def test_20_a_penalty_zeroes_without_its_strength_as_a_cut_off(make_run):
    """Was: lambda of a regularizer is also the cut-off threshold. kept for schedules that ask, and not needed."""
    run = make_run()
    run.scheduler.add_policy(
        RegularizationPolicy(L1Regularizer({NAME: 0.02}), RegularizerArgs(mode="proximal")), Window.between(0, 9)
    )
    run.train(range(6))
    alive = run.weight(NAME)[run.weight(NAME) != 0].abs()
    assert run.zeros(NAME) > 0
    assert alive.min() < 0.02


def test_21_absolute_epochs_are_kept_and_told(make_run):
    """Was: A window starting late jumps by many decay steps at once. the compatible meaning, shown by the dry run."""
    run = make_run()
    run.scheduler.add_policy(
        LRPolicy(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5), run.optimizer),
        Window.between(5, 8),
    )
    rates = []
    for epoch in range(10):
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.train([epoch])
    assert rates == pytest.approx([0.1] * 6 + [0.1 * 0.5**3] * 2 + [0.1 * 0.5**4] * 2)


def test_23_folding_and_minibatches_mask_the_real_weight(make_run):
    """Was: BN folding plus minibatch recomputation masks a temporary tensor, not the weight."""
    run = make_run(minibatches=3)
    run.optimizer.param_groups[0].update(lr=0.0)
    run.model[1].momentum = 0.0  # the variance stays 1, so that a filter's scale is its gamma
    weight, scales = run.weight(FIRST).detach().clone(), run.weight("1.weight").detach()
    small = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 2, 4, 6], []]
    pruner = L1RankedStructureParameterPruner(0.5, [FIRST])
    args = {"fold_batchnorm": True, "mini_batch_pruning_frequency": 1, "mask_on_forward_only": True}
    run.prune(pruner, Window.at([0]), "p", **args)
    seen = []

    def scale(filters):
        scales.fill_(1.0)[filters] = 1e-3

    def watch(step):
        seen.append((run.weight(FIRST).flatten(1) == 0).all(1).nonzero().flatten().tolist())
        if len(seen) % 2 == 0:  # after the step: another scale, and the hidden weights have come back
            scale(small[step.minibatch + 1])
            run.scheduler.masks.dense(FIRST).copy_(weight)

    scale(small[0])
    run.train([0], watch)
    assert seen[::2] == small[:3]


@pytest.mark.parametrize(("round_to", "kept"), [(1, 4), (3, 6)])
def test_24_thinning_preserves_outputs(make_run, round_to, kept):
    """Was: Thinning is not output-preserving (bias, BN beta)."""
    run = make_run().train([0])
    run.model[1].bias.data += 0.5
    run.prune(L1RankedStructureParameterPruner(0.5, [FIRST]), Window.at([1]), "p").train([1])
    x = torch.randn(4, 3, 8, 8)
    before = run.model.eval()(x)
    run.scheduler.add_policy(Thinner(round_to=round_to), Window.at([2]))
    run.scheduler.on_epoch_begin(2, run.optimizer, 3)
    run.scheduler.on_minibatch_begin(2, 0, 3, run.optimizer)
    assert run.model[0].weight.shape[0] == run.model[3].weight.shape[1] == kept
    assert torch.allclose(run.model(x), before, atol=1e-6)


def warnings_of(caplog, make_run, *policies):
    with caplog.at_level(logging.WARNING):
        scheduler = make_run().scheduler
        for name, policy in policies:
            scheduler.add_policy(policy, epochs=[0], name=name)
    return [record.message for record in caplog.records]


def test_a_pruner_and_a_threshold_on_one_parameter_are_warned_about(caplog, make_run):
    found = warnings_of(
        caplog,
        make_run,
        ("r", RegularizationPolicy(L1Regularizer({NAME: 0.1, FIRST: 0.1}, "Max"))),
        ("p", PruningPolicy(SparsityLevelParameterPruner({NAME: 0.5, FIRST: 0.5}))),
    )
    assert found == [
        f"r and p act on {FIRST} and 1 more: "
        "one prunes, the other zeroes what is below its threshold; the weight obeys both"
    ]


@pytest.mark.parametrize(("mode", "criterion", "count"), [("loss", None, 1), ("proximal", None, 0), ("loss", "Max", 0)])
def test_a_mask_of_nothing_is_warned_about(caplog, make_run, mode, criterion, count):
    args = RegularizerArgs(keep_mask=True, mode=mode)
    found = warnings_of(caplog, make_run, ("r", RegularizationPolicy(L1Regularizer({NAME: 0.1}, criterion), args)))
    assert len(found) == count
    assert all("r: keep_mask keeps nothing, since L1Regularizer zeroes no weight" in text for text in found)


def test_no_warning_without_a_threshold(caplog, make_run):
    assert not warnings_of(
        caplog,
        make_run,
        ("p", PruningPolicy(level(0.5))),
        ("r", RegularizationPolicy(L1Regularizer({NAME: 0.1}))),
        ("never", RegularizationPolicy(L1Regularizer({NAME: 0.1}, "Max"), RegularizerArgs(threshold_at="never"))),
    )


def test_thresholds_act_on_the_dense_copy(make_run):
    """What a soft mask hides is thresholded too, and comes back as zero."""
    run = make_run(minibatches=2).prune(level(0.5), Window.between(0, 1), "p", **COPY)
    run.scheduler.add_policy(RegularizationPolicy(L1Regularizer({NAME: 0.02}, "Max")), Window.at([0]), name="r")
    run.train([0])
    dense = run.scheduler.masks[NAME].dense
    assert dense[dense != 0].abs().min() > 0.02
    small = int((dense == 0).sum())
    assert small > 0
    run.scheduler.on_epoch_begin(1, run.optimizer, 2)
    assert run.zeros(NAME) == small


def test_a_folded_constant_is_not_masked_away():
    """Thinning moves a constant into a bias of which elements are pruned: it stays there."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 6, 3)), torch.randn(2, 3, 9, 9)
    scheduler = CompressionScheduler(model, x)
    scheduler.add_policy(PruningPolicy(SparsityLevelParameterPruner({"2.bias": 0.5})), epochs=[0])
    scheduler.add_policy(PruningPolicy(L1RankedStructureParameterPruner(0.5, ["0.weight"])), epochs=[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    scheduler.on_epoch_begin(0, optimizer, 1)
    expected = model(x)
    scheduler.thin(optimizer)
    scheduler.masks.apply()
    assert model[0].out_channels == 4
    assert torch.allclose(model(x), expected, atol=1e-6)
