"""Many policies: what is done grows with their number and no faster, counted in calls, whatever the clock says."""

import itertools
import logging
import sys

import pytest
import torch
from torch import nn

from potstill.compression import PruningPolicy, Window, rank_agreement
from potstill.compression.policies import ScheduledTrainingPolicy
from potstill.compression.policies.timetable import Timetable
from potstill.compression.processes.ranks import Ranks
from potstill.compression.pruners import SparsityLevelParameterPruner
from potstill.compression.schedule import ScheduleError, dict_config, load_schedule
from potstill.compression.scheduler import CompressionScheduler
from potstill.compression.steps import Step

LEVELS = {"class": "SparsityLevelParameterPruner", "levels": {"weight": 0.5}}
PENALTY = {"class": "L1Regularizer", "reg_regims": {"weight": 1e-4}, "threshold_criteria": "Max"}


def pruners(number):
    """So many policies of one pruner, each in an epoch of its own."""
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [epoch]} for epoch in range(number)]
    return {"pruners": {"p": LEVELS}, "policies": policies}


def soft_ones(number):
    """The same, with masks that end with their windows."""
    schedule = pruners(number)
    for policy in schedule["policies"]:
        policy["pruner"] = policy["pruner"] | {"args": {"mask_on_forward_only": True}}
    return schedule


def both_kinds(number):
    """Pruners and thresholds in turn, all on one weight."""
    names = [f"i{place}" for place in range(number)]
    kinds = dict(zip(names, itertools.cycle(["pruner", "regularizer"])))
    window = [{"starting_epoch": epoch, "ending_epoch": epoch + 1, "frequency": 1} for epoch in range(number)]
    return {
        "pruners": {name: LEVELS for name in names if kinds[name] == "pruner"},
        "regularizers": {name: PENALTY for name in names if kinds[name] == "regularizer"},
        "policies": [{kinds[name]: {"instance_name": name}} | when for name, when in zip(names, window, strict=True)],
    }


def train(schedule, epochs):
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = dict_config(model, optimizer, schedule)
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    for epoch in range(epochs):
        at = (epoch, 0, 1)
        scheduler.on_epoch_begin(epoch, optimizer)
        scheduler.on_minibatch_begin(*at, optimizer)
        loss = scheduler.before_backward_pass(*at, model(x).sum(), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(*at, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(*at, optimizer)
        scheduler.on_epoch_end(epoch, optimizer)
    scheduler.load_state_dict(scheduler.state_dict())


def calls(work):
    """How many calls, of Python's functions and of built-in ones, some work takes."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("schedule", [pruners, soft_ones, both_kinds])
def test_calls_grow_with_the_number_of_policies_and_epochs(schedule):
    logging.disable(logging.WARNING)  # of those that meet on the weight
    try:
        train(schedule(4), 4)  # what is imported and cached once
        few, many = (calls(lambda number=number: train(schedule(number), number)) for number in (20, 80))
    finally:
        logging.disable(logging.NOTSET)
    assert many < 4.5 * few, f"{few:,} calls, with four times as many policies {many:,}"


def test_of_policies_that_meet_some_are_named(caplog):
    dict_config(nn.Linear(4, 4), None, both_kinds(60))
    told = [record.getMessage() for record in caplog.records if "i59" in record.getMessage()]
    assert sum("one prunes, the other" in line for line in told) == 10
    assert "the first 10 were named" in told[-1]


def asked(policies, step, by_epoch=False):
    """What a timetable must say, by asking all."""
    inside = [policy for policy in policies if policy.window.covers(step)]
    return [policy for policy in inside if not (by_epoch and policy.window.unit == "minibatch")]


def test_who_acts_is_found_as_by_asking_all():
    scheduler = CompressionScheduler(nn.Linear(4, 4))
    chance = torch.Generator().manual_seed(0)
    for number in range(60):
        start, length, every, kind = torch.randint(1, 12, (4,), generator=chance).tolist()
        unit = ("epoch", "minibatch")[kind % 2]
        window = Window.between(start - 1, start + length, min(every, length), unit)
        if number % 7 == 0:
            window = Window((start, start + 3), unit)  # made by hand, without its end
        scheduler.add_policy(PruningPolicy(SparsityLevelParameterPruner({"weight": 0.5})), window)
    policies, over = scheduler.policies, []
    times = Timetable(policies)
    steps = [Step(*divmod(index, 3), 3) for index in range(75)]
    for step in (*steps, *steps[5::4], *steps[::-1]):
        assert times.acting(step) == asked(policies, step)
        assert times.acting(step, by_epoch=True) == asked(policies, step, by_epoch=True)
    times.begin()
    for step in steps:
        over += [(policy, step) for policy in times.over(step, "epoch")]
    ends = {policy: max(policy.window.end, policy.window.last + 1) for policy, _ in over}
    first = {policy: next(step for step in steps if step.epoch == end) for policy, end in ends.items()}
    assert dict(over) == first and len(over) == len(first) == sum(p.window.unit == "epoch" for p in policies)


class Ends(ScheduledTrainingPolicy):
    """Says when its window is over."""

    def __init__(self):
        self.told = []

    def after_window(self, moment):
        self.told.append(moment.step.epoch)


def test_a_window_s_end_is_told_once_and_again_behind_a_state():
    scheduler, policy = CompressionScheduler(nn.Linear(4, 4)), Ends()
    scheduler.add_policy(policy, epochs=[0])
    for epoch in range(4):
        scheduler.on_epoch_begin(epoch)
    assert policy.told == [1]
    scheduler.load_state_dict(scheduler.state_dict())
    scheduler.on_epoch_begin(4)
    assert policy.told == [1, 4]


class Meets(ScheduledTrainingPolicy):
    """Has a part of the loss, and parameters that policies of another kind may meet."""

    component = "part"

    def __init__(self, number):
        self.number = number

    def targets(self):
        return [f"weight{self.number}"]


def operations(work):
    """How many instructions of Python some work takes."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return counted

    before = sys.gettrace()
    sys.settrace(counted)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_a_policy_joins_without_asking_those_before():
    def join(number):
        scheduler = CompressionScheduler(nn.Linear(4, 4))
        policies = [Meets(place) for place in range(number)]
        return operations(lambda: [scheduler.add_policy(policy, epochs=[0]) for policy in policies])

    join(1)
    few, many = join(20), join(80)
    assert many < 4.2 * few, f"{few:,} operations, with four times as many policies {many:,}"


class TwoAlike(Ranks):
    """As if there were a second process that has the same."""

    size, rank = 2, 0

    def largest(self, numbers):
        return list(numbers)

    def all(self, value):
        return [value, value]


@pytest.fixture
def compared(monkeypatch):
    """What ranks compare, a mapping each time."""
    found = []
    monkeypatch.setattr(rank_agreement, "must_be_same", lambda parts, ranks, when: found.append(parts))
    return found


def test_ranks_compare_what_may_have_changed(compared):
    def course(number):
        scheduler = dict_config(nn.Linear(4, 4), None, soft_ones(number))
        scheduler.ranks = TwoAlike()
        compared.clear()
        for epoch in range(number):
            scheduler.on_epoch_begin(epoch)
            scheduler.on_minibatch_begin(epoch, 0, 1)
            scheduler.on_minibatch_end(epoch, 0, 1)
        return sum(map(len, compared))

    assert course(80) < 4.2 * course(20)


def test_ranks_compare_masks_that_were_set_or_dropped_by_others_too(compared):
    scheduler = dict_config(nn.Linear(4, 4), None, pruners(3))
    scheduler.ranks = TwoAlike()
    told = []
    for epoch in range(4):
        if epoch == 2:
            scheduler.masks.set("mine", "bias", torch.zeros(4))
        elif epoch == 3:
            scheduler.masks.drop("mine")
        scheduler.on_epoch_begin(epoch)
        told.append({key: value for key, value in compared[-1].items() if key.startswith("the mask")})
    assert list(told[1]) == ["the mask of weight by p.2"]
    assert list(told[2]) == ["the mask of bias by mine", "the mask of weight by p.3"]
    assert told[3] == {"the mask of bias by mine": None}
    scheduler.state_dict()
    assert len([key for key in compared[-1] if key.startswith("the mask")]) == 3  # all of them, before they are stored


def misnamed(number):
    """So many policies that name no instance of as many."""
    names = [f"pruner{place}" for place in range(number)]
    policies = [{"pruner": {"instance_name": name.replace("n", "m")}, "epochs": [0]} for name in names]
    return {"pruners": dict.fromkeys(names, LEVELS), "policies": policies}


def test_hints_do_not_compare_each_name_with_each():
    def check(number):
        with pytest.raises(ScheduleError) as caught:
            load_schedule(misnamed(number), nn.Linear(4, 4))
        assert len(caught.value.problems) == number
        assert "did you mean pruner0?" in str(caught.value)

    check(1)
    few, many = (calls(lambda number=number: check(number)) for number in (40, 160))
    assert many < 4.2 * few, f"{few:,} calls, with four times as many names {many:,}"


def test_of_what_stands_twice_an_instance_is_told_its_own(tmp_path):
    def check(number):
        line = "  p{0}: {{class: SparsityLevelParameterPruner, levels: {{weight: 0.{1}}}}}\n"
        twice = [line.format(place, digit) for place in range(number) for digit in (4, 5)]
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"pruners:\n{''.join(twice)}policies:\n  - {{pruner: {{instance_name: p0}}, epochs: [0]}}\n")
        with pytest.raises(ScheduleError) as caught:
            load_schedule(path, nn.Linear(4, 4))
        assert len(caught.value.problems) == number

    check(1)
    few, many = (operations(lambda number=number: check(number)) for number in (15, 60))
    assert many < 4.2 * few, f"{few:,} operations, with four times as many instances {many:,}"
