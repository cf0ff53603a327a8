"""Targets of latency, on a machine whose times are a formula: what is asked is what comes out, and resumes exactly."""

import json
import shutil

import pytest
import torch
from torch import nn

from potstill import prune_channels
from potstill.compression import ScheduleError, dict_config
from potstill.compression.latency import fastest as fastest_module
from potstill.compression.latency import layers, measure, table
from potstill.compression.latency.channels import channel_costs
from potstill.compression.latency.costs import Cost, cost_of
from potstill.compression.latency.fastest import Choice
from potstill.compression.latency.layers import Case, calls
from potstill.compression.latency.table import LatencyTable
from potstill.compression.regularizers.l0 import latency
from potstill.thinning import trace

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
STEPS = 60


def network():
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1, groups=24)]
    parts += [nn.Conv2d(24, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(32, 5))


def layer_time(layer):
    """Milliseconds of a layer: 0.1, and a millionth for each element of its weight, ten for each output."""
    return 0.1 + 1e-6 * layer.weight.numel() * 64 + 1e-4 * layer.weight.shape[0]


def network_time(model):
    """All layers, 1 ms, and what norms and activations take: a 5000th ms a channel of a convolution."""
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    every = [*convs, *(module for module in model.modules() if isinstance(module, nn.Linear))]
    return 1 + sum(map(layer_time, every)) + sum(2e-4 * 64 * conv.out_channels for conv in convs)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "potstill" / "latency"


@pytest.fixture
def clock(monkeypatch):
    """Times by formula; `drift` is added to each whole network, as noise would."""
    noise = {"drift": 0.0}
    monkeypatch.setattr(Case, "milliseconds", lambda case, i, o: layer_time(case._layer(i, o)))
    whole = lambda models, inputs: [network_time(model) + noise["drift"] for model in models]  # noqa: E731
    monkeypatch.setattr(latency, "milliseconds", whole)
    return noise


def scheduler_of(model, optimizer, resumed_epoch=None, **target):
    gates = {"class": "L0Regularizer", "weights": ["0.weight", "4.weight"], "droprate_init": 0.05, **target}
    window = {"regularizer": {"instance_name": "gates"}, "starting_minibatch": 0, "ending_minibatch": STEPS}
    schedule = {"regularizers": {"gates": gates}, "policies": [window]}
    return dict_config(model, optimizer, schedule, None, resumed_epoch, example_inputs=IMAGES)


def train(scheduler, model, optimizer, start, end):
    for step in range(start, end):
        scheduler.on_minibatch_begin(0, step, STEPS, optimizer)
        loss = nn.functional.cross_entropy(model(IMAGES), torch.arange(4))
        loss = scheduler.before_backward_pass(0, step, STEPS, loss, optimizer)
        optimizer.zero_grad()
        getattr(loss, "overall_loss", loss).backward()
        scheduler.before_parameter_optimization(0, step, STEPS, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, step, STEPS, optimizer)


def begun(**target):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    scheduler = scheduler_of(model, optimizer, **target)
    scheduler.on_epoch_begin(0, optimizer, STEPS)
    return model, optimizer, scheduler


@pytest.mark.parametrize("target", [{"target_latency": 0.85}, {"target_latency": 0.7}, {"target_milliseconds": 1.75}])
def test_what_is_asked_comes_out(clock, target):
    dense = network_time(network())
    model, optimizer, scheduler = begun(**target)
    train(scheduler, model, optimizer, 0, STEPS)
    scheduler.on_epoch_end(0, optimizer)
    scheduler.finish()
    entry = scheduler.account().iloc[-1]
    scheduler.thin(optimizer)
    asked = target.get("target_latency", target.get("target_milliseconds", 0) / dense)
    assert network_time(model) / dense == pytest.approx(asked, abs=0.02)
    assert (entry["unit"], entry["of"]) == ("microseconds", round(1000 * dense))
    assert entry["hidden"] == pytest.approx(1000 * (dense - network_time(model)), abs=2)


def test_the_expected_latency_is_the_formula(clock):
    """Bilinear layers, outputs and a constant: for any gates, what thinning leaves takes what was computed."""
    model, _, scheduler = begun(target_latency=0.7)
    (policy,) = scheduler.policies
    gates = policy.regularizer
    for seed in range(3):
        opened = torch.rand(56, generator=torch.Generator().manual_seed(seed)) < 0.5
        small = latency.without(model, gates._channels, opened, IMAGES, False)
        expected = network_time(small) / network_time(model)
        assert gates._constraint.size(opened) == pytest.approx(expected, abs=1e-6)


def test_a_resumed_run_equals_one_that_was_not_cut_though_time_is_measured_anew(clock):
    model, optimizer, scheduler = begun(target_latency=0.7)
    train(scheduler, model, optimizer, 0, 30)
    kept = [model.state_dict(), optimizer.state_dict(), scheduler.state_dict()]
    kept = json_free(kept)
    train(scheduler, model, optimizer, 30, STEPS)
    scheduler.on_epoch_end(0, optimizer)
    clock["drift"] = 0.4  # the machine is slower when the run goes on
    other = network()
    theirs = torch.optim.SGD(other.parameters(), 0.05)
    resumed = scheduler_of(other, theirs, target_latency=0.7)
    other.load_state_dict(kept[0])
    theirs.load_state_dict(kept[1])
    resumed.load_state_dict(kept[2])
    clock["drift"] = 0.0
    train(resumed, other, theirs, 30, STEPS)
    resumed.on_epoch_end(0, theirs)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_run_goes_on_with_its_times_on_a_machine_that_is_fast_enough_as_it_is(clock, caplog):
    model, optimizer, scheduler = begun(target_milliseconds=1.75)
    train(scheduler, model, optimizer, 0, 30)
    within = json_free(scheduler.state_dict())
    train(scheduler, model, optimizer, 30, STEPS)
    scheduler.on_epoch_end(0, optimizer)
    account = scheduler.account().iloc[-1]
    clock["drift"] = -0.9
    for state in (within, scheduler.state_dict()):
        other = network()
        theirs = torch.optim.SGD(other.parameters(), 0.05)
        with pytest.raises(ScheduleError, match="less than the 1.75 ms"):
            scheduler_of(other, theirs, target_milliseconds=1.75)
        resumed = scheduler_of(other, theirs, resumed_epoch=0, target_milliseconds=1.75)
        assert "less than the 1.75 ms that were asked for (on this machine; a run that goes on has" in caplog.text
        resumed.load_state_dict(state)
        assert resumed.account().iloc[-1][["of", "asked"]].equals(account[["of", "asked"]])
    # The window was over: what is left is told as it was measured then.
    assert resumed.account().iloc[-1]["hidden"] == account["hidden"] > 0


@pytest.mark.parametrize("steps", [0, 30])
def test_times_are_those_of_the_first_machine_and_the_target_that_of_now(clock, steps):
    model, optimizer, scheduler = begun(target_latency=0.7) if steps else (network(), None, None)
    scheduler = scheduler or scheduler_of(model, torch.optim.SGD(model.parameters(), 0.05), target_latency=0.7)
    train(scheduler, model, optimizer, 0, steps)
    state = json_free(scheduler.state_dict())
    clock["drift"] = -0.4
    targets = [{"target_latency": 0.8}, {"target_milliseconds": 1.75}]
    others = [] if steps else [{"target_latency": 0.9, "weights": ["0.weight"]}]  # gates whose times were not measured
    for target in (*targets, *others):
        other = network()
        resumed = scheduler_of(other, torch.optim.SGD(other.parameters(), 0.05), **target)
        resumed.load_state_dict(state)
        entry, dense = resumed.account().iloc[-1], network_time(other) + (-0.4 if "weights" in target else 0)
        left = target.get("target_milliseconds", target.get("target_latency", 0) * dense)
        assert (entry["of"], entry["asked"]) == pytest.approx((1000 * dense, 1000 * (dense - left)), abs=1)


def json_free(value):
    """A copy that shares no tensor."""
    return torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, value)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"target_latency": 0.1}, "the target is out of reach: with one channel left in each gated layer"),
        ({"target_milliseconds": 50.0}, "less than the 50 ms that were asked for"),
        ({"target_latency": 1.0}, "target_latency is the share of the time that stays: 1 leaves nothing to do"),
        ({"target_latency": 0.5, "target_macs": 0.5}, "give exactly one of strength, target_sparsity, target_macs"),
    ],
)
def test_what_cannot_be_is_an_error_before_training(clock, target, expected):
    model = network()
    with pytest.raises(ScheduleError, match=expected):
        scheduler_of(model, torch.optim.SGD(model.parameters(), 0.1), **target)


def test_calls_are_as_the_network_makes_them():
    found = calls(network(), IMAGES)
    assert list(found) == ["0.weight", "3.weight", "4.weight", "9.weight"]
    (first,), (depthwise,), _, (head,) = found.values()
    assert (first.shape, first.inputs, first.outputs, first.kernel[0]) == ((4, 3, 8, 8), 3, 24, (3, 3))
    assert depthwise.depthwise and list(depthwise.widths((0.5, 1.0))) == [(12, 12), (24, 24)]
    assert (head.kind, head.shape) == ("Linear", (4, 32)) and next(first.widths((0.5, 1.0))) == (2, 12)
    assert depthwise._layer(12, 12).weight.shape == (12, 1, 3, 3) and first._input(2).shape == (4, 2, 8, 8)
    assert first.milliseconds(2, 12) > 0


def test_the_layout_is_that_of_the_network():
    model, images = (value.to(memory_format=torch.channels_last) for value in (network(), IMAGES))
    (case,) = calls(model, measure.resized(images, 2))["4.weight"]
    assert case.channels_last and case.shape == (2, 24, 8, 8)
    assert case._input(7).is_contiguous(memory_format=torch.channels_last)


def case_of(**changes):
    base = {"kind": "Conv2d", "kernel": ((1, 1), (1, 1), (0, 0), (1, 1)), "groups": 1, "bias": False}
    base |= {"shape": (1, 40, 4, 4), "channels_last": False, "dtype": "float32", "device": "cpu"}
    return Case(**(base | {"inputs": 40, "outputs": 80} | changes))


def test_a_bilinear_layer_is_found_exactly(monkeypatch):
    truth = Cost(0.3, 0.01, 0.002, 0.0005)
    monkeypatch.setattr(Case, "milliseconds", lambda case, i, o: truth.at(i, o))
    found = cost_of([case_of(), case_of()], LatencyTable("cpu"))
    assert [found.fixed, found.by_input, found.by_output, found.by_both] == pytest.approx([0.6, 0.02, 0.004, 0.001])


def test_no_width_counts_as_slower_than_a_wider_one(monkeypatch):
    monkeypatch.setattr(Case, "milliseconds", lambda case, i, o: 2 - 0.01 * i if i % 20 else 1.0)
    found = cost_of([case_of()], LatencyTable("cpu"))
    assert min(found.fixed, found.by_input, found.by_output, found.by_both) >= 0


def test_what_was_measured_is_kept(monkeypatch, cache):
    asked = []
    monkeypatch.setattr(Case, "milliseconds", lambda case, i, o: asked.append((i, o)) or 0.5)
    for _ in range(2):
        kept = LatencyTable("cpu")
        cost_of([case_of()], kept)
        kept.save()
    assert len(asked) == 16 and len(list(cache.iterdir())) == 1
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["device"] == table.device_name("cpu")
    torch.set_num_threads(threads := torch.get_num_threads() + 1)
    try:
        cost_of([case_of()], LatencyTable("cpu"))
        assert len(asked) == 32
    finally:
        torch.set_num_threads(threads - 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"milliseconds": {"a": "b"}}', '{"milliseconds": {"a": NaN}}'])
def test_a_damaged_file_is_measured_anew_and_said_so(cache, caplog, content):
    path = LatencyTable("cpu").path
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert not LatencyTable("cpu")._times
    assert "they are measured anew" in caplog.text


def test_a_link_is_neither_read_nor_written_through(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(Case, "milliseconds", lambda case, i, o: 0.5)
    path = LatencyTable("cpu").path
    path.parent.mkdir(parents=True)
    (tmp_path / "victim").write_text("mine")
    path.symlink_to(tmp_path / "victim")
    kept = LatencyTable("cpu")
    cost_of([case_of()], kept)
    kept.save()
    assert (tmp_path / "victim").read_text() == "mine" and not path.is_symlink()


def test_the_goal_is_moved_until_the_measured_network_is_as_asked():
    goals = []

    def share_of(goal):
        goals.append(goal)
        return 0.2 + 0.7 * goal  # what is computed as 0.4 takes 0.48

    goal, share = latency.settle(share_of, 0.4)
    assert share == pytest.approx(0.4, abs=0.01) and goal == pytest.approx(2 / 7, abs=0.015)
    assert goals[0] == 0.4 and len(goals) <= 5


def test_where_no_network_is_fast_enough_the_one_that_loses_least_is_taken():
    goal, share = latency.settle(lambda goal: 0.8 + 0.001 * goal, 0.6)  # mostly overhead
    assert (goal, share) == (0.6, pytest.approx(0.8006))


@pytest.mark.parametrize("steepness", [0.3, 3.0])
def test_the_goal_is_found_where_measured_latency_moves_faster_or_slower_than_computed(steepness):
    goal, share = latency.settle(lambda goal: 0.5 + steepness * (goal - 0.53), 0.6)
    assert share == pytest.approx(0.6, abs=0.011)
    assert 0.5 + steepness * (goal - 0.53) == share


def test_times_are_those_of_eval_mode_and_modes_stay():
    seen = []
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    model.register_forward_hook(lambda module, args, out: seen.append([part.training for part in module.modules()]))
    times = measure.milliseconds([model, model], torch.zeros(1, 2), seconds=0.0)
    assert all(time > 0 for time in times) and not any(map(any, seen))
    assert model.training and model[0].training and not model[1].training


def test_a_slow_spell_of_the_machine_does_not_count_for_one_of_two_networks(monkeypatch):
    slow = iter([1, 1, 5, 5, 1, 1, 3, 3, 2, 2, 4, 1])  # the machine's, per call: the last round ends a slow spell
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def call(milliseconds):
        def one():
            clock[0] += milliseconds / 1000 * next(slow, 1)

        return one

    whole, part = measure.alternately([call(10), call(6)], lambda: None, seconds=0.06)
    assert whole == pytest.approx(10) and part == pytest.approx(6)


def test_of_several_calls_each_counts(monkeypatch):
    monkeypatch.setattr(layers, "SECONDS", 0.0)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(4, 4)

        def forward(self, x):
            return self.own(self.own(x))

    (found,) = calls(Twice(), torch.zeros(2, 4)).values()
    assert len(found) == 2


def masked_network():
    model = network()
    with torch.no_grad():
        for part in (model[0], model[1], model[3]):
            for parameter in part.parameters():
                parameter[5:] = 0
        for part in (model[4], model[5]):
            for parameter in part.parameters():
                parameter[13:] = 0
    return model


@pytest.mark.parametrize(
    ("slow", "expected"),
    [
        ({}, Choice(1, "channels_last")),
        ({(5, "channels_last"): 2.0}, Choice(1, "contiguous")),
        ({(5, "channels_last"): 2.0, (5, "contiguous"): 2.0}, Choice(4, "channels_last")),
        ({(5, "channels_last"): 1.01, (5, "contiguous"): 1.01}, Choice(1, "channels_last")),
    ],
)
def test_the_fastest_way_to_thin_is_the_one_that_is_measured_so(monkeypatch, slow, expected):
    """Of 5 and 13 channels stay multiples of 1, 4, 8, 16: 5/13, 8/16, 16/16 of 24 and 32; no network is taken twice."""
    measured = []

    def times(models, inputs, seconds):
        form = {True: "channels_last", False: "contiguous"}
        keys = [(m[0].out_channels, form[m[0].weight.is_contiguous(memory_format=torch.channels_last)]) for m in models]
        measured.extend(keys)
        return [slow.get(key, 1.0) for key in keys]

    monkeypatch.setattr(fastest_module, "milliseconds", times)
    model = masked_network()
    assert fastest_module.fastest(model, IMAGES) == expected
    assert len(measured) == len(set(measured)) and {width for width, _ in measured} >= {5, 8, 16}
    assert model[0].out_channels == 24


def test_a_channel_takes_its_part_of_the_layers_that_make_and_read_it(clock):
    model = network()
    graph = trace(model, IMAGES)
    found = channel_costs(model, graph, IMAGES, batch=4)
    # 24 channels are made by a convolution of 27 weights a filter, pass one of 9, and are read by 32 filters; 32
    # channels are made of 24 and read by 5 units. Each weight takes 64e-6 ms, each output 1e-4.
    first, second = found[graph.channels_of("0.weight")], found[graph.channels_of("4.weight")]
    assert first.tolist() == pytest.approx([(27 + 9 + 32) * 64e-6 + 2e-4] * 24, rel=1e-6)
    assert second.tolist() == pytest.approx([(24 + 5) * 64e-6 + 1e-4] * 32, rel=1e-6)


WEIGHTS = ["0.weight", "4.weight"]


def filters_left(model):
    return [int((model[index].weight.flatten(1) != 0).any(1).sum()) for index in (0, 4)]


def ranked(model, state=None, **arguments):
    pruner = {"class": "GlobalStructurePruner", "desired_sparsity": 0.5, "weights": WEIGHTS, **arguments}
    window = {"pruner": {"instance_name": "ranks"}, "epochs": [0, 1]}
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    schedule = {"pruners": {"ranks": pruner}, "policies": [window]}
    scheduler = dict_config(model, optimizer, schedule, example_inputs=IMAGES)
    if state is not None:
        scheduler.load_state_dict(state)
    scheduler.on_epoch_begin(0, optimizer)
    return scheduler


def equal_scores():
    """Return a network all of whose filters score alike, but for chance of a thousandth."""
    model = network()
    for index in (0, 4):
        weight = model[index].weight
        weight.data = (1 + 1e-3 * torch.rand(len(weight))).view(-1, 1, 1, 1).expand_as(weight).clone()
    return model


def test_channels_of_equal_score_go_where_they_take_time(clock):
    model = equal_scores()
    ranked(model)
    assert 0 < filters_left(model)[0] < 24 and 0 < filters_left(model)[1] < 32
    model = equal_scores()
    ranked(model, per="millisecond")  # 28 of 56: those of 0.weight take more than twice the time, and one stays
    assert filters_left(model) == [1, 27]


def test_measured_times_resume(clock, cache, monkeypatch):
    model = equal_scores()
    state = ranked(model, per="millisecond").state_dict()
    shutil.rmtree(cache)
    monkeypatch.setattr(Case, "milliseconds", lambda *_: pytest.fail("measured again"))
    again = equal_scores()
    ranked(again, state, per="millisecond")
    assert filters_left(again) == [1, 27]


def test_prune_channels_by_time(clock):
    model = equal_scores()
    prune_channels(model, IMAGES, sparsity=0.3, scope="global", per="millisecond")
    assert (model[0].out_channels < 24, model[4].out_channels) == (True, 32)
    with pytest.raises(ValueError, match="per is channel or millisecond, not 'second'"):
        prune_channels(model, IMAGES, sparsity=0.3, per="second")
    with pytest.raises(ValueError, match="latency_batch must be at least 1, not 0"):
        prune_channels(model, IMAGES, sparsity=0.3, per="millisecond", latency_batch=0)


def test_equal_shares_have_no_times(clock):
    with pytest.raises(ScheduleError, match="per: scope layer takes the same share of each layer"):
        ranked(network(), per="millisecond", scope="layer")
