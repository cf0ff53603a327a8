"""Policies: a mistake hides no other, and what would be ignored or fail later is told when the schedule is loaded."""

import pytest

from potstill.compression.schedule import ScheduleError, file_config

from .told import AGP, L1, Net, of_policy, told


@pytest.mark.parametrize("args", [[], 0, False, "", 3, "x"])
def test_args_are_a_mapping(args):
    assert of_policy(AGP, args)[0].startswith("args: must be a mapping, not ")
    assert of_policy({"class": "Thinner"}, args, "extensions")[0].startswith("args: must be a mapping, not ")


def test_empty_args_are_none():
    assert of_policy(AGP, {}) == []
    assert of_policy({"class": "Thinner"}, {}, "extensions") == []


def test_all_of_a_policy_is_told():
    args = {"mask_gradients": True, "use_double_copies": True, "keep_mask": 3, "levels": {"fc.weight": 7, "q": 1}}
    found = of_policy(AGP, args, starting_epoch=4, ending_epoch=2, frequency=9)
    assert [line[:70] for line in found] == [
        "args.keep_mask: must be true or false, not 3",
        "args.levels.fc.weight: must be a number of at least 0 and at most 1, not 7"[:70],
        "args.levels.q: the name 'q' fits no parameter; the model's begin with conv1.weight"[:70],
        "args: mask_gradients needs mask_on_forward_only: true",
        "args: use_double_copies needs mask_on_forward_only: true",
        "starting_epoch: a window needs 0 <= start < end, not 4 to 2",
        "frequency: a frequency of 9 does not fit into 4 to 2",
        "args.levels: AutomatedGradualPruner takes no levels; SparsityLevelParameterPruner does"[:70],
    ]
    assert of_policy(AGP, {"mask_gradients": True, "mask_on_forward_only": 1}) == [
        "args.mask_on_forward_only: must be true or false, not 1"
    ]


@pytest.mark.parametrize(
    ("times", "places"),
    [
        (
            {"starting_epoch": "x", "epochs": [-3, 1.5]},
            ["starting_epoch: must", "epochs[0]: must", "epochs[1]: must", "mixes epochs and starting_epoch"],
        ),
        (
            {"starting_epoch": 4, "ending_epoch": 4, "frequency": 9},
            ["starting_epoch: a window", "frequency: a frequency"],
        ),
        ({"starting_epoch": 4, "ending_epoch": 4, "frequency": 0}, ["frequency: must", "starting_epoch: a window"]),
        ({"starting_epoch": 9, "ending_epoch": 4, "frequency": 3}, ["starting_epoch: a window needs 0 <= start < end"]),
        ({"starting_epoch": 4, "frequency": 0}, ["frequency: must be", "`ending_epoch` is missing"]),
        ({"epochs": [4, -1, 2]}, ["epochs[1]: must be", "epochs: a list of times must be rising"]),
        ({"minibatches": [4, -1, 5]}, ["minibatches[1]: must be"]),
        ({"epochs": [1, 10**30]}, ["epochs: is later than any training lasts: at most 1,000,000,000,000"]),
        ({"starting_minibatch": 0, "ending_minibatch": 10**13}, ["ending_minibatch: is later than any training"]),
        (
            {"starting_epch": 4, "ending_epoch": 5},
            ["starting_epch: there is no such key (did you mean starting_epoch?)"],
        ),
    ],
)
def test_all_times_are_checked(times, places):
    found = of_policy(AGP, **times)
    assert len(found) == len(places), found
    assert all(line.startswith(place) for line, place in zip(found, places, strict=True)), found


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (of_policy(AGP, {"levels": {"fc.weight": 0.5}}), "args.levels: AutomatedGradualPruner takes no levels"),
        (
            of_policy(AGP, {"mini_batch_pruning_frequency": 2}, starting_minibatch=0, ending_minibatch=9),
            "args.mini_batch_pruning_frequency: is for windows of epochs: in one of minibatches, minibatch_frequency",
        ),
        (
            of_policy(AGP, {"skip_first_minibatch": True}, minibatches=[3]),
            "args.skip_first_minibatch: skips the only minibatch of the window",
        ),
        (
            of_policy(AGP, {"keep_mask": True, "discard_masks_at_minibatch_end": True}),
            "args: keep_mask keeps nothing, since discard_masks_at_minibatch_end drops the masks",
        ),
        (
            of_policy(L1, {"threshold_at": "end"}, "regularizers"),
            "args.threshold_at: there is no threshold to act: give the instance threshold_criteria",
        ),
        (
            of_policy(
                {"class": "GroupVarianceRegularizer", "reg_regims": {"conv1.weight": [1, "Channels"]}},
                {"threshold_at": "epoch"},
                "regularizers",
            ),
            "args.threshold_at: GroupVarianceRegularizer has no threshold",
        ),
        (
            of_policy(
                {"class": "L0Regularizer", "weights": ["conv1.weight"], "strength": 1},
                {"mode": "proximal"},
                "regularizers",
            ),
            "args.mode: L0Regularizer has no proximal step: use mode: loss",
        ),
        (
            of_policy(
                {"class": "L0Regularizer", "weights": ["conv1.weight"], "strength": 1},
                {},
                "regularizers",
                epochs=[1, 3],
            ),
            "epochs: gates act at each time of their window: frequency 1, no gaps in a list",
        ),
        (
            of_policy({"class": "ReduceLROnPlateau"}, None, "lr_schedulers", starting_minibatch=0, ending_minibatch=4),
            "starting_minibatch: ReduceLROnPlateau follows the validation, which comes once an epoch",
        ),
        (
            of_policy({"class": "OneCycleLR", "max_lr": 0.1, "total_steps": 3}, None, "lr_schedulers"),
            "starting_epoch: OneCycleLR has total_steps 3, but its window ends at epoch 4",
        ),
        (
            of_policy(
                {
                    "class": "BaiduRNNPruner",
                    "q": 0.1,
                    "ramp_epoch_offset": 12,
                    "ramp_slope_mult": 2,
                    "weights": "fc.weight",
                }
            ),
            "starting_epoch: ends before the ramp begins: ramp_epoch_offset 12 must be at most 3 in a window of 4",
        ),
    ],
)
def test_what_a_policy_would_ignore_or_fail_at_is_told(policy, message):
    assert len(policy) == 1
    assert policy[0].startswith(message)


def test_a_mistake_in_the_instance_does_not_hide_those_of_its_policies():
    definition = {"class": "GroupVarianceRegularizr", "reg_regims": {"conv1.weight": ["x", "Channels"]}}
    policy = {"regularizer": {"instance_name": "p", "args": {"mode": "proximal", "keep": 1}}, "epochs": [1]}
    found = told({"regularizers": {"p": definition}, "policies": [policy]})
    assert [line.partition(": ")[0] for line in found] == [
        "regularizers.p.class",
        "regularizers.p.reg_regims.conv1.weight[0]",
        "policies[0].regularizer.args.keep",
        "policies[0].regularizer.args.mode",
    ]


def test_misspelled_sections_and_kinds_are_checked_under_what_they_mean():
    policies = [{"prunner": {"instance_name": "q", "args": {"keep_mask": 3}}, "epochs": [1]}]
    found = told({"pruner": {"p": AGP | {"final_sparsity": 7}}, "policies": policies})
    assert [line.partition(": ")[0] for line in found] == [
        "pruner",
        "pruners.p.final_sparsity",
        "policies[0].prunner",
        "policies[0]",
        "policies[0].prunner.instance_name",
        "policies[0].prunner.args.keep_mask",
    ]


def test_what_stands_twice_is_not_told_on(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        "pruners:\n  p: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.5, final_sparsity: 0, "
        "weights: [fc.weight]}\npruners:\n  q: {class: Thinner}\n"
        "policies:\n  - {pruner: {instance_name: p}, epochs: [1]}\n"
    )
    assert not any("defines no" in line or "must be above" in line for line in told(file))


def test_what_only_building_can_tell_is_told_at_once(tmp_path):
    """At the policy that cannot be carried out, or at the instance that cannot be made: once, for all its policies."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "pruners:\n  a: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, group_type: Coupled, "
        "weights: [conv1.weight]}\n"
        "lr_schedulers:\n  decay: {class: ExponentialLR, gamma: 0.9}\n"
        "policies:\n  - {lr_scheduler: {instance_name: decay}, epochs: [0]}\n"
        "  - {lr_scheduler: {instance_name: decay}, epochs: [1]}\n  - {pruner: {instance_name: a}, epochs: [0]}\n"
        "  - {pruner: {instance_name: a, args: {fold_batchnorm: true}}, epochs: [0]}\n"
    )
    with pytest.raises(ScheduleError) as caught:
        file_config(Net(), None, file)
    assert [line.removeprefix(f"{file}:") for line in str(caught.value).splitlines()] == [
        "4: lr_schedulers.decay: needs an optimizer, and none was given",
        "8: policies[2].pruner: group_type Coupled needs to know what belongs together: give CompressionScheduler "
        "example_inputs",
        "9: policies[3].pruner: fold_batchnorm needs to know what follows what: give CompressionScheduler "
        "example_inputs",
    ]


def test_what_a_second_key_hides_is_checked(tmp_path):
    agp = "{class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: FINAL, weights: [fc.weight]}"
    file = tmp_path / "s.yaml"
    file.write_text(
        f"pruners:\n  p: {agp.replace('FINAL', '7')}\n  p: {agp.replace('FINAL', '8')}\n"
        f"pruners:\n  q: {agp.replace('FINAL', '0.05')}\n  q: {agp.replace('FINAL', '0.5')}\n"
        "policies:\n  - {pruner: {instance_name: q}, epochs: [x]}\n"
        "policies:\n  - {pruner: {instance_name: q}, epochs: [1]}\n"
    )
    found = [line.removeprefix(f"{file}:") for line in told(file)]
    assert [line[:60] for line in found if "stands twice" not in line] == [
        "2: pruners (line 1).p (line 2).final_sparsity: must be a number"[:60],
        "3: pruners (line 1).p.final_sparsity: must be a number of at"[:60],
        "5: pruners.q (line 5).final_sparsity: 0.05 must be above initial"[:60],
        "8: policies (line 7)[0].epochs[0]: must be a whole number of at"[:60],
    ]
