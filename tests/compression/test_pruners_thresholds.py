"""Pruners that compare with a threshold, by values computed here from the published formulas."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, Step, Window
from potstill.compression.pruners import (
    BaiduRNNPruner,
    MagnitudeParameterPruner,
    SensitivityPruner,
    SplicingPruner,
    StructureParameterPruner,
)

NAME = "3.weight"


@pytest.fixture
def line():
    layer = nn.Linear(5, 1)
    layer.weight.data = torch.tensor([[-3.0, -1.0, 0.0, 1.0, 2.0]])
    layer.bias.data = torch.tensor([0.5])
    return layer


def masks_of(pruner, model, view):
    pruner.bind(model)
    return {name: mask.int().tolist() for name, mask in pruner.masks(view).items()}


def test_magnitude(line, make_view):
    pruner = MagnitudeParameterPruner({"weight": 1.0, "*": 0.4})
    assert masks_of(pruner, line, make_view(line)) == {"weight": [[1, 0, 0, 0, 1]], "bias": [1]}
    assert "bias" not in masks_of(MagnitudeParameterPruner({"weight": 1.0}), line, make_view(line))


def test_sensitivity_freezes_its_threshold_at_the_first_activation(line, make_view):
    spread = (sum((x + 0.2) ** 2 for x in (-3, -1, 0, 1, 2)) / 4) ** 0.5  # 1.92
    pruner = SensitivityPruner({"weight": 1.0})
    assert masks_of(pruner, line, make_view(line)) == {"weight": [[1, 0, 0, 0, 1]]}
    assert pruner.state_dict()["deviations"]["weight"] == pytest.approx(spread)
    line.weight.data *= 0.8
    assert pruner.masks(make_view(line, 2))["weight"].int().tolist() == [[1, 0, 0, 0, 0]]
    fresh = SensitivityPruner({"weight": 1.0})
    fresh.load_state_dict(pruner.state_dict())
    fresh.bind(line)
    assert torch.equal(fresh.masks(make_view(line, 2))["weight"], pruner.masks(make_view(line, 2))["weight"])


def test_splicing_has_hysteresis_and_a_rising_sensitivity(line, make_view):
    sizes = [3.0, 1.0, 0.0, 1.0, 2.0]
    mean = sum(sizes) / 5
    spread = (sum((x - mean) ** 2 for x in sizes) / 4) ** 0.5
    pruner = SplicingPruner({"weight": 0.2}, 0.8, 1.2, sensitivity_multiplier=0.5)
    view = make_view(line, mode="forward")
    low, high = (mean + spread * 0.2) * 0.8, (mean + spread * 0.2) * 1.2
    assert low == pytest.approx(1.302, abs=1e-3)
    assert high == pytest.approx(1.953, abs=1e-3)
    assert masks_of(pruner, line, view) == {"weight": [[1, 0, 0, 0, 1]]}
    line.weight.data = torch.tensor([[1.4, 1.4, 2.1, 1.2, 1.2]])  # between, between, back, out, out
    before = {"weight": torch.tensor([[1.0, 0, 0, 0, 1]])}
    assert pruner.masks(make_view(line, 0, masks=before, mode="forward"))["weight"].int().tolist() == [[1, 0, 1, 0, 0]]
    # at epoch 4 the sensitivity is 0.2 x (4 x 0.5 + 1) = 0.6: both thresholds have risen by 0.4 deviations
    line.weight.data = torch.tensor([[1.6, 1.7, 2.3, 2.6, 0.0]])
    later = pruner.masks(make_view(line, 4, masks=before, mode="forward"))["weight"].int().tolist()
    rise = mean + spread * 0.6
    assert 1.6 < rise * 0.8 < 1.7
    assert 2.3 < rise * 1.2 < 2.6
    assert later == [[0, 0, 0, 1, 0]]


def test_splicing_lets_weights_return_through_the_scheduler(make_run):
    pruner = SplicingPruner({NAME: 0.2}, 0.05, 0.1)
    run = make_run(minibatches=20).prune(
        pruner, Window.between(0, 2), "p", mask_on_forward_only=True, keep_mask=True, mini_batch_pruning_frequency=1
    )
    seen = []
    run.train([0], lambda step: seen.append(run.scheduler.masks.of("p")[NAME].clone()))
    assert any((later > earlier).any() for earlier, later in pairwise(seen))
    run.train([1])
    assert run.scheduler.masks[NAME].owners["p"].mode == "hard"


def test_baidu_threshold():
    """Narang et al. 2017 with q = 0.08, start 2, end 12, every 2, ramp after 4 epochs, twice as steep."""
    pruner = BaiduRNNPruner(0.08, 4, 2.0, ["weight"])
    window = Window.between(2, 12, 2)
    slope = 2 * 0.08 * 2 / (2 * 4 + 3 * 6)
    expected = [slope * 1 / 2, slope * 3 / 2] + [(slope * 5 + 2 * slope * (n + 1)) / 2 for n in (0, 2, 4)]
    assert [pruner.threshold(window, Step(epoch)) for epoch in range(2, 12, 2)] == pytest.approx(expected)
    assert pruner.threshold(Window.at([3, 7]), Step(7)) > 0  # Distiller: TypeError


@pytest.mark.parametrize("make", [SensitivityPruner, lambda s: SplicingPruner(s, 0.5, 1.5)])
def test_weights_that_are_not_numbers_have_no_deviation(line, make_view, make):
    """One of them would hide all weights: nothing is above a threshold that is not a number."""
    line.weight.data[0, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^weight has values that are not finite \(NaN or infinite\)"):
        masks_of(make({"weight": 1.0}), line, make_view(line))


@pytest.mark.parametrize("offset", [4, 12, 100])
def test_baidu_ramps_begin_inside_of_the_window(line, offset):
    """Three windows late the slope divides by zero, and behind that it is negative."""
    policy = PruningPolicy(BaiduRNNPruner(0.1, offset, 2.0, "weight"))
    with pytest.raises(ValueError, match=f"ramp_epoch_offset {offset} must be at most 3 in a window of 4"):
        CompressionScheduler(line).add_policy(policy, Window.between(2, 6))
    pruner = BaiduRNNPruner(0.1, 3, 2.0, "weight")
    CompressionScheduler(line).add_policy(PruningPolicy(pruner), Window.between(2, 6))
    assert all(pruner.threshold(Window.between(2, 6), Step(epoch)) > 0 for epoch in range(2, 6))


def test_parameters_without_elements_have_a_mean_all_the_same(make_view):
    """A mean that is no number could not be taken back from a checkpoint."""
    net = nn.Module()
    net.none = nn.Parameter(torch.zeros(0, 3))
    pruner = SplicingPruner({"*": 1.0}, 0.5, 1.5)
    assert masks_of(pruner, net, make_view(net)) == {"none": []}
    pruner.load_state_dict(pruner.state_dict())


def test_baidu_masks(line, make_view):
    pruner = BaiduRNNPruner(20.0, 2, 2.0, ["weight"])
    view = make_view(line, 1)
    assert 1 < pruner.threshold(view.window, view.step) < 3
    assert masks_of(pruner, line, view)["weight"][0][0] == 1
    assert masks_of(pruner, line, view)["weight"][0][1] == 0


@pytest.mark.parametrize(("criterion", "kept"), [("Max", [1, 1, 0]), ("Mean_Abs", [1, 0, 0])])
def test_structures_by_size(make_view, criterion, kept):
    conv = nn.Conv2d(1, 3, 2, bias=False)
    conv.weight.data = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 1.6], [0.5, -0.5, 0.5, 0.5]]).view(3, 1, 2, 2)
    pruner = StructureParameterPruner({"weight": (0.5, "Filters")}, criterion)
    assert [m[0][0][0] for m in masks_of(pruner, conv, make_view(conv))["weight"]] == kept


def test_structures_by_size_take_biases_and_norms_along(make_run):
    run = make_run().train([0])
    run.model[0].weight.data[2] *= 1e-3
    size = run.model[0].weight.detach().flatten(1).abs().mean(1)
    threshold = float(size.sort().values[0] * 1.01)
    run.prune(StructureParameterPruner({"0.weight": (threshold, "3D")}, "Mean_Abs"), Window.at([1]), "p").train([1])
    assert {name: int((mask == 0).sum()) for name, mask in run.scheduler.masks.of("p").items()} == {
        "0.weight": 27, "0.bias": 1, "1.weight": 1, "1.bias": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: SensitivityPruner({NAME: 0.8, "*": 0.3}),
        lambda: SplicingPruner({NAME: 0.2}, 0.9, 1.1, 0.1),
        lambda: BaiduRNNPruner(0.1, 2, 1.5, [NAME]),
        lambda: MagnitudeParameterPruner({NAME: 0.03}),
        lambda: StructureParameterPruner({NAME: (0.07, "2D")}, "Mean_Abs"),
    ],
)
@pytest.mark.parametrize("args", [{}, {"mask_on_forward_only": True, "keep_mask": True}])
def test_a_resumed_run_is_the_uninterrupted_one(make_run, make, args):
    def start():
        return make_run().prune(make(), Window.between(1, 4), "p", **args)

    whole = start()
    saved = [whole.train([epoch]).save() for epoch in range(5)]
    assert whole.zeros(NAME) > 0
    for epoch in range(4):
        resumed = start().load(saved[epoch]).train(range(epoch + 1, 5))
        assert all(torch.equal(p, whole.weight(n)) for n, p in resumed.model.named_parameters()), epoch
