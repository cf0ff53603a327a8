"""The account: what was asked, hidden and can be removed, counted here by hand or by thinning itself."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, RegularizationPolicy, Window, dict_config
from potstill.compression.pruners import SparsityLevelParameterPruner
from potstill.compression.regularizers import L0Regularizer
from potstill.thinning import resize_to

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 16, 3, padding=1) for n in (3, 16, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.a(x).relu()
        return self.head((x + self.c(self.b(x).relu())).relu().mean((2, 3)))


def grouped(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), norm, nn.ReLU(), nn.Conv2d(32, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 4, 3)
    )


def filters(name: str, weights: list[str], level: float = 0.5, group: str = "Filters") -> dict:
    pruner = {"class": "L1RankedStructureParameterPruner", "weights": weights, "desired_sparsity": level}
    policy = {"pruner": {"instance_name": name}, "epochs": [0]}
    return {"pruners": {name: pruner | {"group_type": group}}, "policies": [policy]}


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def rows(scheduler: CompressionScheduler) -> dict:
    table = scheduler.account()
    return {(row.policy, row.parameter): row for row in table.itertuples()}


def test_filters_that_go_and_filters_that_stay(caplog: pytest.LogCaptureFixture) -> None:
    model = Residual()
    scheduler = dict_config(model, None, filters("half", ["b.weight", "c.weight"]), example_inputs=IMAGES)
    scheduler.on_epoch_begin(0)
    scheduler.finish()
    found = rows(scheduler)
    goes, stays = found["half", "b.weight"], found["half", "c.weight"]
    assert (goes.unit, goes.of, goes.hidden, goes.removable, goes.stays) == ("filters", 16, 8, 8, 0)
    assert (stays.of, stays.hidden, stays.removable, stays.stays) == (16, 8, 0, 8)
    assert (stays.first, stays.last, stays.why) == (
        "epoch 0",
        "epoch 0",
        "the same channels as a.weight, not zero there",
    )
    assert [text for text in told(caplog) if "c.weight stay" in text] == [
        "half: 8 of 8 hidden filters of c.weight stay as zeros: the same channels as a.weight, not zero there"
        " (use group_type: Coupled, or list a.weight too)"
    ]
    scheduler.thin()
    assert len(model.b.weight) == 8
    again = rows(scheduler)["half", "b.weight"]
    assert (again.of, again.hidden, again.removable, again.stays) == (16, 8, 8, 0)


@pytest.mark.parametrize(
    ("level", "args", "asked", "why"),
    [
        (0.05, {}, 0, "less than one of the filters was asked"),
        (0.5, {"mask_on_forward_only": True}, 8, "its soft masks end with the window (keep_mask: true keeps them)"),
        (0.5, {"discard_masks_at_minibatch_end": True}, 8, "each of its masks lasts for a minibatch"),
    ],
)
def test_what_acted_and_hides_nothing_is_told(caplog, level: float, args: dict, asked: int, why: str) -> None:
    schedule = filters("none", ["b.weight"], level)
    schedule["policies"][0]["pruner"]["args"] = args
    scheduler = dict_config(Residual(), None, schedule, example_inputs=IMAGES)
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 1)
    scheduler.on_minibatch_end(0, 0, 1)
    scheduler.on_epoch_end(0, None, None, 1)
    scheduler.on_epoch_begin(1)
    scheduler.finish()
    row = rows(scheduler)["none", "b.weight"]
    assert (row.asked, row.hidden) == (asked, 0) and row.why.startswith(why)
    assert told(caplog) == [f"none acted, and hides nothing now: {row.why}"]


def test_single_weights_are_counted_of_the_dense_network_after_thinning() -> None:
    pruners = {"level": {"class": "SparsityLevelParameterPruner", "levels": {"b.weight": 0.5}}}
    schedule = filters("half", ["b.weight"])
    schedule["pruners"] |= pruners
    schedule["policies"].append({"pruner": {"instance_name": "level"}, "epochs": [0]})
    scheduler = dict_config(Residual(), None, schedule, example_inputs=IMAGES)
    scheduler.on_epoch_begin(0)
    before = rows(scheduler)["level", "b.weight"]
    assert (before.of, before.asked, before.hidden) == (16 * 144, 8 * 144, 8 * 144)
    resumed = dict_config(copy.deepcopy(scheduler.model), None, schedule, example_inputs=IMAGES)
    resumed.load_state_dict(scheduler.state_dict())
    for one in (scheduler, resumed):
        one.thin()
        assert one.model.b.weight.shape[0] == 8
    again = dict_config(scheduler.model, None, schedule, example_inputs=IMAGES)
    again.load_state_dict(scheduler.state_dict())
    for after in (rows(one)["level", "b.weight"] for one in (scheduler, resumed, again)):
        assert (after.of, after.asked, after.hidden) == (before.of, before.asked, before.hidden)


def test_what_a_threshold_zeroed_counts_when_thinning_has_removed_it() -> None:
    penalty = {"class": "L1Regularizer", "reg_regims": {"b.weight": 0.0}, "threshold_criteria": "Max"}
    policy = {"regularizer": {"instance_name": "small"}, "starting_epoch": 0, "ending_epoch": 1}
    model = Residual()
    with torch.no_grad():
        model.b.weight[:4], model.b.bias[:4] = 0, 0  # some filters, and single weights of the others
        model.b.weight[4:, 3] = 0
    schedule = {"regularizers": {"small": penalty}, "policies": [policy]}
    scheduler = dict_config(model, None, schedule, example_inputs=IMAGES)
    scheduler.on_epoch_begin(0)
    scheduler.finish()
    before = rows(scheduler)["small", "b.weight"]
    assert (before.of, before.hidden, before.removable) == (16 * 144, 4 * 144 + 12 * 9, 4 * 144)
    scheduler.thin()
    after = rows(scheduler)["small", "b.weight"]
    assert (after.of, after.hidden, after.removable) == (before.of, before.hidden, before.removable)


def test_what_the_policy_lists_already_is_no_way_out(caplog) -> None:
    model = Residual()
    scheduler = dict_config(model, None, filters("half", ["a.weight", "c.weight"]), example_inputs=IMAGES)
    scheduler.on_epoch_begin(0)
    scheduler.finish()
    for text in (text for text in told(caplog) if "stay as zeros" in text):
        assert "(use group_type: Coupled, which hides what belongs together)" in text
    assert "stay as zeros" in caplog.text


def test_single_weights_are_counted_and_not_warned_of(caplog) -> None:
    model = Residual()
    scheduler = CompressionScheduler(model, IMAGES)
    scheduler.add_policy(PruningPolicy(SparsityLevelParameterPruner({"b.weight": 0.3})), Window.at([0]), name="fine")
    scheduler.on_epoch_begin(0)
    scheduler.finish()
    (row,) = rows(scheduler).values()
    number = model.b.weight.numel()
    assert (row.unit, row.of, row.asked, row.hidden) == ("weights", number, int(0.3 * number), int(0.3 * number))
    assert row.stays == row.hidden - row.removable
    assert told(caplog) == []


def test_what_only_allow_inexact_removes() -> None:
    model = grouped(nn.GroupNorm(1, 32))
    scheduler = dict_config(model, None, filters("half", ["0.weight"], group="Coupled"), example_inputs=IMAGES)
    scheduler.on_epoch_begin(0)
    row = rows(scheduler)["half", "0.weight"]
    assert (row.hidden, row.removable, row.inexact, row.stays) == (16, 0, 16, 0)
    scheduler.thin(allow_inexact=True)
    assert len(model[0].weight) == 16


def test_without_inputs_nothing_is_known_of_what_can_be_removed() -> None:
    scheduler = dict_config(Residual(), None, filters("half", ["b.weight"]))
    scheduler.on_epoch_begin(0)
    row = rows(scheduler)["half", "b.weight"]
    assert (row.hidden, row.removable, row.stays, row.why) == (8, 0, 8, "nothing is known of it without example_inputs")


def gates(model: nn.Module, weights: list[str], **more: object) -> CompressionScheduler:
    scheduler = CompressionScheduler(model, IMAGES)
    policy = RegularizationPolicy(L0Regularizer(weights, droprate_init=0.05, **more))
    scheduler.add_policy(policy, Window.between(0, 2), name="gates")
    return scheduler


def train(scheduler: CompressionScheduler, model: nn.Module, steps: int = 10) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for i in range(2 * steps):
        at = (*divmod(i, steps), steps, optimizer)
        if i % steps == 0:
            scheduler.on_epoch_begin(i // steps, optimizer, steps)
        scheduler.on_minibatch_begin(*at)
        loss = scheduler.before_backward_pass(*divmod(i, steps), steps, model(IMAGES).square().mean(), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(*at)
        optimizer.step()
        scheduler.on_minibatch_end(*at)


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_target_is_met_by_what_can_be_removed_and_gates_of_the_rest_stay_open(share: float) -> None:
    model = grouped(nn.GroupNorm(4, 32))
    dense = sum(p.numel() for p in model.parameters())
    scheduler = gates(model, ["0.weight", "3.weight"], target_sparsity=share)
    train(scheduler, model)
    scheduler.finish()
    row = rows(scheduler)["gates", ""]
    scheduler.thin()
    gone = 1 - sum(p.numel() for p in model.parameters()) / dense
    assert gone == pytest.approx(share, abs=0.02)  # a channel of 3.weight is 0.03 of this network
    assert not (model[0].weight == 0).flatten(1).all(1).any()
    assert (row.unit, row.of, row.asked) == ("parameters", dense, round(share * dense))
    assert row.removable == round(gone * dense)


def test_a_target_that_only_allow_inexact_reaches() -> None:
    model = grouped(nn.GroupNorm(1, 32))
    with pytest.raises(ValueError, match="out of reach.*0.weight.*averages over the channels.*allow_inexact: true"):
        gates(model, ["0.weight"], target_sparsity=0.3)
    dense = sum(p.numel() for p in model.parameters())
    scheduler = gates(model, ["0.weight"], target_sparsity=0.3, allow_inexact=True)
    train(scheduler, model)
    scheduler.finish()
    scheduler.thin()
    assert 1 - sum(p.numel() for p in model.parameters()) / dense == pytest.approx(0.3, abs=0.02)


def test_channels_whose_constant_cannot_be_folded_are_in_the_way() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Sigmoid(), nn.Conv2d(16, 8, 3, padding=1), nn.Flatten(),
        nn.Linear(288, 2),
    )  # fmt: skip
    with pytest.raises(ValueError, match="0.weight stay: a constant other than 0 meets the zero padding of 3"):
        gates(model, ["0.weight"], target_sparsity=0.3)


def test_whole_channels_that_are_too_large_are_told_before_training(caplog) -> None:
    gates(Residual(), ["b.weight"], target_sparsity=0.1)
    (text,) = told(caplog)
    assert "gates: whole channels are so large that the nearest to the target is sparsity 0.1" in text


def test_a_target_that_whole_groups_miss_is_refused_with_what_can_be_asked() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.GroupNorm(4, 64), nn.ReLU(), nn.Conv2d(64, 4, 1), nn.Flatten(), nn.Linear(144, 2)
    )
    with pytest.raises(ValueError, match="nearest.*channels of 0.weight go 16 at a time") as error:
        gates(model, ["0.weight"], target_sparsity=0.3)
    # A group is 16 x (27 + 1 + 2) of the layer and norm, and 16 x 4 of the next layer.
    share = 16 * (30 + 4) / sum(p.numel() for p in model.parameters())
    reachable = min((count * share for count in (1, 2, 3)), key=lambda share: abs(share - 0.3))
    assert f"sparsity {reachable:.4f} " in str(error.value)


def test_sizes_of_counts_by_block_are_those_of_each_choice() -> None:
    model = grouped(nn.BatchNorm2d(32))
    gates_of = gates(model, ["0.weight", "3.weight"], target_macs=0.5).policies[0].regularizer
    budget = gates_of._constraint.budget
    choices = torch.rand(5, 64, generator=torch.Generator().manual_seed(0)).round().double()
    counts = torch.stack([budget.blocks[choice.bool()].bincount(minlength=2) for choice in choices]).double()
    assert budget.shares(counts).tolist() == pytest.approx([budget.share(choice).item() for choice in choices])


def test_counts_survive_a_resume() -> None:
    model, again = Residual(), Residual()
    first = dict_config(model, None, filters("half", ["b.weight"]), example_inputs=IMAGES)
    first.on_epoch_begin(0)
    first.thin()
    resize_to(again, model.state_dict()).load_state_dict(model.state_dict())
    second = dict_config(again, None, filters("half", ["b.weight"]), example_inputs=IMAGES)
    second.load_state_dict(first.state_dict())
    assert second.removed == {"half": {"b.weight": 8}}
