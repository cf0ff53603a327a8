"""Zero stays zero; masks of several owners combine; a resumed run is the uninterrupted one."""

import copy
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, Masks, Window
from potstill.compression.pruners import AutomatedGradualPruner, SparsityLevelParameterPruner
from potstill.thinning import thin
from potstill.thinning.verify import Verifier

NAME = "3.weight"
SOFT = {"forward": {"mask_on_forward_only": True}, "copy": {"mask_on_forward_only": True, "use_double_copies": True}}
MODES = {"hard": {}, **SOFT}


@pytest.fixture
def linear():
    return nn.Linear(3, 2, bias=False)


def test_shape_and_values_of_masks_are_checked(linear):
    masks = Masks(linear)
    with pytest.raises(ValueError, match=r"mask of weight has shape \(2,\), the parameter \(2, 3\)"):
        masks.set("a", "weight", torch.ones(2))
    with pytest.raises(ValueError, match="mask of weight by a has values that are not finite"):
        masks.set("a", "weight", torch.full((2, 3), torch.nan))


def test_owners_combine_by_and_and_leave_one_by_one(linear):
    before = linear.weight.detach().clone()
    masks = Masks(linear)
    a, b = torch.tensor([[1, 0, 1], [1, 1, 1]]), torch.tensor([[1, 1, 1], [0, 1, 1]])
    masks.set("a", "weight", a, "copy")
    masks.set("b", "weight", b, "copy")
    assert torch.equal(linear.weight, before * a * b)
    assert torch.equal(masks["weight"].mask, (a * b).float())
    masks.drop("a")
    assert torch.equal(linear.weight, before * b)
    masks.drop("b")
    assert torch.equal(linear.weight, before)
    assert masks["weight"].mask is None
    assert masks["weight"].dense is None


def test_a_hard_mask_is_not_undone_by_the_end_of_a_soft_one(linear):
    before = linear.weight.detach().clone()
    masks = Masks(linear)
    hard, soft = torch.tensor([[0, 1, 1], [1, 1, 1]]), torch.tensor([[1, 0, 1], [1, 1, 1]])
    masks.set("soft", "weight", soft, "copy")
    masks.set("hard", "weight", hard)
    masks.drop("soft")
    assert torch.equal(linear.weight, before * hard)


def test_gradients_of_hard_masks_stop_and_those_of_soft_ones_flow(linear):
    masks = Masks(linear)
    masks.set("hard", "weight", torch.tensor([[0, 1, 1], [1, 1, 1]]))
    masks.set("soft", "weight", torch.tensor([[1, 0, 1], [1, 1, 1]]), "forward", stops_gradient=False)
    masks.set("both", "weight", torch.tensor([[1, 1, 0], [1, 1, 1]]), "forward", stops_gradient=True)
    linear(torch.ones(1, 3)).sum().backward()
    masks.mask_gradients()
    assert torch.equal(linear.weight.grad, torch.tensor([[0.0, 1, 0], [1, 1, 1]]))


def test_factors_scale_every_forward_pass_in_copy_mode_and_once_in_the_others():
    factors = torch.tensor([[0, 2, 2]])
    for mode, after in (("copy", [0, 4, 6]), ("forward", [0, 4, 6]), ("hard", [0, 4, 6])):
        layer = nn.Linear(3, 1, bias=False)
        layer.weight.data = torch.tensor([[1.0, 2, 3]])
        masks = Masks(layer)
        masks.set("a", "weight", factors, mode)
        assert layer.weight.tolist() == [after]
        for _ in range(2):
            masks.restore_dense()
            masks.apply()
            assert layer.weight.tolist() == [after]


@pytest.mark.parametrize("mode", ["copy", "forward"])
def test_masks_that_are_applied_again_keep_what_they_hide(mode):
    """As after values were loaded into the model: a copy takes these over, its own stay where nothing was loaded."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2, 3, 4]])
    masks = Masks(layer)
    masks.set("a", "weight", torch.tensor([[0, 1, 0, 1]]), mode)
    for _ in range(2):
        masks.apply()
        assert (layer.weight.tolist(), masks.dense("weight").tolist()) == ([[0, 2, 0, 4]], [[1, 2, 3, 4]])
    layer.load_state_dict({"weight": torch.tensor([[5.0, 6, 0, 4]])})
    masks.apply()
    assert (layer.weight.tolist(), masks.dense("weight").tolist()) == ([[0, 6, 0, 4]], [[5, 6, 3, 4]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_zero_stays_zero_for_50_steps(make_run, mode, optimizer):
    run = make_run(optimizer, minibatches=10).train([0])  # a step before, so that momentum is there
    run.prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.at([1]), "p", keep_mask=True, **MODES[mode])
    seen = []

    def watch(step):
        hidden = run.scheduler.masks.of("p")[NAME] == 0
        seen.append(bool(hidden.sum() == hidden.numel() // 2 and (run.weight(NAME)[hidden] == 0).all()))

    run.train(range(1, 6), watch)
    assert len(seen) == 100
    assert all(seen)


def test_without_a_window_masks_go_on(make_run):
    """After the last policy has ended, and in another scheduler that has no policy at all."""
    run = make_run().prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.at([0])).train(range(3))
    other = make_run(seed=1).load(run.save()).train(range(3, 6))
    assert other.zeros(NAME) == 288


@pytest.mark.parametrize("mode", SOFT)
def test_soft_masks_end_with_the_window(make_run, mode):
    """Dense, sparse, dense; and validation and checkpoint of every epoch inside are sparse."""
    run = make_run().prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.between(1, 3, 2), "p", **SOFT[mode])
    zeros = [run.train([epoch]).zeros(NAME) for epoch in range(4)]
    assert zeros == [0, 288, 288, 0]
    assert run.scheduler.masks[NAME].dense is None


def test_soft_masks_of_a_window_in_minibatches_end_with_it(make_run):
    run = make_run(minibatches=5)
    run.prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.between(2, 8, 3, "minibatch"), "p", **SOFT["copy"])
    zeros = []
    run.train(range(2), lambda step: zeros.append(run.zeros(NAME)))
    assert zeros[::2] == [0, 0, 288, 288, 288, 288, 288, 288, 0, 0]


def test_hidden_values_come_back_from_the_copy_and_from_zero(make_run):
    """`copy` keeps what it hides, `forward` loses it at the first step."""
    for mode, kept in (("copy", True), ("forward", False)):
        run = make_run(minibatches=1)
        before = run.weight(NAME).detach().clone()
        run.optimizer.param_groups[0].update(lr=1e-6, momentum=0, weight_decay=0)
        run.prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.at([0]), "p", **SOFT[mode]).train([0])
        hidden = run.scheduler.masks.of("p")[NAME] == 0
        run.train([1])
        assert torch.allclose(run.weight(NAME)[hidden], before[hidden] if kept else torch.zeros(()), atol=1e-5)


def test_keep_mask_makes_soft_masks_hard_at_the_last_time(make_run):
    run = make_run().prune(
        SparsityLevelParameterPruner({NAME: 0.5}), Window.between(0, 4, 3), "p", keep_mask=True, **SOFT["forward"]
    )
    modes = [run.train([epoch]).scheduler.masks[NAME].owners["p"].mode for epoch in range(5)]
    assert modes == ["forward", "forward", "forward", "hard", "hard"]
    assert run.zeros(NAME) == 288


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_is_the_uninterrupted_one(make_run, mode):
    def make():
        window = Window.between(1, 5, 2)
        return make_run("adam").prune(AutomatedGradualPruner(0.2, 0.7, [NAME]), window, keep_mask=True, **MODES[mode])

    whole = make()
    saved = [whole.train([epoch]).save() for epoch in range(7)]
    for epoch in range(6):
        resumed = make().load(saved[epoch]).train(range(epoch + 1, 7))
        for name, parameter in resumed.model.named_parameters():
            assert torch.equal(parameter, whole.weight(name)), (epoch, name)


def test_masks_survive_a_file_with_owners_and_modes(make_run):
    run = make_run().prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.between(0, 9), "soft", **SOFT["copy"])
    run.prune(SparsityLevelParameterPruner({NAME: 0.25}), Window.between(0, 9), "hard").train([0])
    other = make_run(seed=1).load(run.save())
    for owner in ("soft", "hard"):
        ours, theirs = run.scheduler.masks[NAME].owners[owner], other.scheduler.masks[NAME].owners[owner]
        assert torch.equal(ours.mask, theirs.mask)
        assert (ours.mode, ours.stops_gradient) == (theirs.mode, theirs.stops_gradient)
    assert torch.equal(run.scheduler.masks[NAME].dense, other.scheduler.masks[NAME].dense)


def test_masks_of_another_model_are_refused(linear):
    masks = Masks(linear)
    masks.set("a", "weight", torch.ones(2, 3))
    state = masks.state_dict()
    with pytest.raises(ValueError, match="masks of parameters that the model does not have: weight"):
        Masks(nn.Sequential(linear)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"mask: expected a tensor of shape \[3, 3\], found a tensor of bool \[2, 3\]"):
        Masks(nn.Linear(3, 3)).load_state_dict(state)


def test_masks_take_the_memory_format_of_the_parameter():
    """Else the fused pass falls back to a slow one."""
    conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    masks = Masks(conv)
    masks.set("a", "weight", torch.ones(4, 4, 3, 3), "copy")
    assert masks["weight"].mask.stride() == conv.weight.stride() == masks["weight"].dense.stride()


def test_masks_follow_thinning(linear):
    masks = Masks(linear)
    masks.set("a", "weight", torch.tensor([[1, 0, 1], [1, 1, 0]]), "copy")
    linear.weight.data = linear.weight.data[:, 1:]
    masks.reshape({"weight": lambda tensor: tensor[:, 1:]})
    assert masks["weight"].mask.tolist() == [[0, 1], [1, 0]]
    assert masks["weight"].dense.shape == (2, 2)
    masks.apply()
    assert linear.weight[0, 0] == linear.weight[1, 1] == 0


def test_a_copied_model_is_a_plain_one(make_run):
    run = make_run().prune(SparsityLevelParameterPruner({NAME: 0.5}), Window.at([0])).train([0])
    plain = make_run(seed=5).model
    plain.load_state_dict(copy.deepcopy(run.model).state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain.eval()(x), run.model.eval()(x))


def test_parameters_that_were_replaced_are_told(linear):
    model = nn.Sequential(linear)
    scheduler = CompressionScheduler(model)
    scheduler.on_epoch_begin(0)
    model[0] = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="0.weight is not the parameter that it was when the scheduler was made"):
        scheduler.on_epoch_begin(1)


def test_weights_that_another_scheduler_thinned_are_told():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    first, second = (CompressionScheduler(model, torch.zeros(2, 6)) for _ in range(2))
    for scheduler in (first, second):
        mask = torch.ones(8, 6)
        mask[:2] = 0
        scheduler.masks.set("p", "0.weight", mask)
        scheduler.masks.set("p", "0.bias", mask[:, 0])
    first.thin()
    with pytest.raises(ValueError, match=r"0.weight has shape \(6, 6\), its mask by p \(8, 6\): thin with"):
        second.on_epoch_begin(0)


def test_masks_and_copies_take_the_type_that_the_model_is_given(linear):
    model = nn.Sequential(linear)
    scheduler = CompressionScheduler(model)
    mask = (torch.rand_like(linear.weight) > 0.5).float()
    scheduler.masks.set("p", "0.weight", mask, "copy")
    model.bfloat16()
    scheduler.masks.apply()
    entry = scheduler.masks["0.weight"]
    assert {entry.mask.dtype, entry.dense.dtype, linear.weight.dtype} == {torch.bfloat16}
    again = CompressionScheduler(nn.Sequential(nn.Linear(3, 2, bias=False)).bfloat16())
    again.load_state_dict(scheduler.state_dict())


def _masked_network() -> CompressionScheduler:
    """A convolution with BatchNorm, two of its channels masked to zero, with a dense copy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))
    scheduler = CompressionScheduler(model, torch.randn(2, 3, 8, 8))
    alive = torch.tensor([1, 1, 1, 1, 0, 0])
    scheduler.masks.set("p", "0.weight", alive.view(-1, 1, 1, 1).expand(6, 3, 3, 3), "copy")
    for name in ("0.bias", "1.weight", "1.bias"):
        scheduler.masks.set("p", name, alive)
    return scheduler


def test_thin_takes_the_masks_of_a_scheduler():
    scheduler = _masked_network()
    thin(scheduler.model, torch.randn(2, 3, 8, 8), masks=scheduler.masks)
    for name, parameter in scheduler.model.named_parameters():
        mask = scheduler.masks[name].mask
        assert mask is None or mask.shape == parameter.shape, name
    assert scheduler.masks["0.weight"].dense.shape == (4, 3, 3, 3)


@pytest.mark.parametrize(("part", "broken"), [(Verifier, "_compare"), (Masks, "admit")])
def test_masks_are_rolled_back_with_the_rest(monkeypatch, part, broken):
    scheduler = _masked_network()
    model, masks = scheduler.model, scheduler.masks
    before = copy.deepcopy([model.state_dict(), masks.state_dict()["dense"]])
    hidden = {name: masks[name].mask.clone() for name in masks if masks[name].owners}
    monkeypatch.setattr(part, broken, Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        thin(model, torch.randn(2, 3, 8, 8), masks=masks)
    torch.testing.assert_close([model.state_dict(), masks.state_dict()["dense"]], before, rtol=0, atol=0)
    assert all(torch.equal(masks[name].mask, mask) for name, mask in hidden.items())
    masks.apply()
    assert model[0].weight.shape == (6, 3, 3, 3)


def test_what_is_let_go_is_hidden_no_more():
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 5)
    masks = Masks(layer)
    masks.set("pruner", "weight", torch.tensor([[0.0, 1]]), mode="copy")
    entry = masks["weight"]
    assert entry.mask.tolist() == [[0, 1]]
    entry.let_go(torch.tensor([[True, False]]), torch.tensor([[3.0, 5]]), lambda dense: 2 * dense)
    assert entry.mask.tolist() == [[1, 1]]
    assert entry.dense.tolist() == [[3, 10]]
