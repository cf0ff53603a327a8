"""Penalties, thresholds and proximal steps against autograd and closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, RegularizationPolicy, RegularizerArgs, Step, Window
from potstill.compression.regularizers import (
    GroupLassoRegularizer,
    GroupVarianceRegularizer,
    L1Regularizer,
    L2Regularizer,
)

NAME = "3.weight"
STEP = Step(0)


def filters(w):
    return w.flatten(1)


def channels(w):
    return w.transpose(0, 1).flatten(1)


def kernels(w):
    return w.flatten(2).flatten(0, 1)


def layer(w):
    return w.flatten()[None]


GROUPS = {
    "2D": [kernels],
    "3D": [filters],
    "Filters": [filters],
    "Cols": [filters],
    "Channels": [channels],
    "Rows": [channels],
    "4D": [layer],
    "Rows+Cols": [filters, channels],
    "Cols+Rows": [filters, channels],
    "Channels+4D": [channels, layer],
    "4D+Channels": [channels, layer],
}


def gradient(function, weights):
    """Value and gradients, by autograd through torch's own operations."""
    leaves = {name: weight.detach().double().requires_grad_() for name, weight in weights.items()}
    value = function(leaves)
    grads = torch.autograd.grad(value * 3, list(leaves.values()), allow_unused=True)
    return value, dict(zip(leaves, grads, strict=True))


def assert_same_penalty(regularizer, net, expected):
    weights = dict(net.named_parameters())
    value, grads = gradient(expected, weights)
    ours = regularizer.loss(weights, STEP)
    assert ours.shape == ()
    assert torch.allclose(ours.double(), value, rtol=1e-5)
    net.zero_grad()
    (ours * 3).backward()
    for name, weight in weights.items():
        if grads[name] is None:
            assert weight.grad is None
        else:
            assert torch.allclose(weight.grad.double(), grads[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("strengths", [{NAME: 0.1, "0.weight": 0.1}, {NAME: 0.1, "0.weight": 0.2}])
def test_l1_is_strength_times_the_sum_of_absolute_values(net, strengths):
    net[3].weight.data[0] = 0
    regularizer = L1Regularizer(strengths)
    regularizer.bind(net)
    assert_same_penalty(regularizer, net, lambda w: sum(s * w[n].abs().sum() for n, s in strengths.items()))
    assert not net[3].weight.grad[0].any()


def test_l2_is_weight_decay(net):
    """The same step as SGD's `weight_decay` gives the listed parameter."""
    regularizer = L2Regularizer({NAME: 0.3})
    regularizer.bind(net)
    assert_same_penalty(regularizer, net, lambda w: 0.15 * w[NAME].square().sum())
    decayed = net[3].weight.detach().clone().requires_grad_()
    decayed.grad = torch.zeros_like(decayed)
    torch.optim.SGD([decayed], lr=0.1, weight_decay=0.3).step()
    net.zero_grad()
    regularizer.loss(dict(net.named_parameters()), STEP).backward()
    torch.optim.SGD([net[3].weight], lr=0.1).step()
    assert torch.allclose(net[3].weight, decayed)


@pytest.mark.parametrize("group_type", GROUPS)
def test_group_lasso_is_strength_times_the_sum_of_norms(net, group_type):
    regularizer = GroupLassoRegularizer({NAME: (0.1, group_type), "0.weight": (0.2, group_type)})
    regularizer.bind(net)
    assert_same_penalty(
        regularizer,
        net,
        lambda w: sum(
            s * split(w[n]).norm(dim=1).sum()
            for n, s in ((NAME, 0.1), ("0.weight", 0.2))
            for split in GROUPS[group_type]
        ),
    )


def test_the_gradient_of_a_zero_group_is_zero(net):
    net[3].weight.data[2] = 0
    regularizer = GroupLassoRegularizer({NAME: (0.1, "Filters")})
    regularizer.bind(net)
    regularizer.loss(dict(net.named_parameters()), STEP).backward()
    assert torch.isfinite(net[3].weight.grad).all()
    assert not net[3].weight.grad[2].any()


def test_group_variance(net):
    regularizer = GroupVarianceRegularizer({NAME: (0.1, "Channels"), "6.weight": (0.3, "Channels")})
    regularizer.bind(net)
    assert_same_penalty(
        regularizer,
        net,
        lambda w: 0.1 / channels(w[NAME]).norm(dim=1).var() + 0.3 / channels(w["6.weight"]).norm(dim=1).var(),
    )
    shapes = {"one.weight": torch.Size((4, 1, 3, 3)), "bias": torch.Size((4,))}
    args = {"reg_regims": {"one.weight": (0.1, "Channels"), "bias": (0.1, "Channels")}}
    messages = [message for _, message in GroupVarianceRegularizer.problems(args, shapes)]
    assert messages[0] == "one.weight of shape (4, 1, 3, 3) has one channel: no variance"
    assert messages[1].startswith("Channels needs a weight of 2 dimensions")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.a(x)
        return self.head(torch.relu(x + self.norm(self.b(x))).mean((2, 3)))


def members(w):
    """Everything that makes a channel of the residual sum: (channel, elements)."""
    return torch.cat(
        [filters(w["a.weight"]), filters(w["b.weight"])]
        + [w[name][:, None] for name in ("a.bias", "b.bias", "norm.weight", "norm.bias")],
        dim=1,
    )


def coupled(strength=0.1, **more):
    model = Residual()
    scheduler = CompressionScheduler(model, torch.zeros(1, 3, 4, 4))
    regularizer = GroupLassoRegularizer({"b.weight": (strength, "Coupled")}, **more)
    scheduler.add_policy(RegularizationPolicy(regularizer), Window.between(0, 2), name="r")
    return model, scheduler, regularizer


def test_coupled_group_lasso_takes_whole_channels():
    model, _, regularizer = coupled()
    assert_same_penalty(regularizer, model, lambda w: 0.1 * members(w).norm(dim=1).sum())


@pytest.mark.parametrize("criterion", ["Max", "Mean_Abs"])
def test_coupled_threshold(criterion):
    model, scheduler, regularizer = coupled(0.05, threshold_criteria=criterion)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name in ("a.weight", "a.bias", "b.weight", "b.bias", "norm.weight", "norm.bias"):
        weights[name][2] *= 0.01
    sizes = members(weights).abs()
    keep = (sizes.amax(1) if criterion == "Max" else sizes.mean(1)) > 0.05
    assert keep.tolist() == [True, True, False, True, True, True]
    for mask in regularizer.threshold(weights).values():
        assert torch.equal(mask.flatten(1).any(1) if mask.dim() > 1 else mask.bool(), keep)
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_end(0, 0, 2)
    assert not model.norm.weight[2]
    assert model.norm.weight[0]


def test_coupled_proximal_step_shrinks_each_channel_as_one():
    model, _, regularizer = coupled(2.0)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    before = members(weights).clone()
    regularizer.proximal(weights, dict.fromkeys(weights, 0.4))
    shrunk = before * (1 - 0.8 / before.norm(dim=1, keepdim=True)).clamp_min(0)
    assert torch.allclose(members(weights), shrunk, atol=1e-6)


def test_coupled_needs_a_traced_model(net):
    with pytest.raises(
        ValueError, match="Coupled needs to know what belongs together: give the scheduler example_inputs"
    ):
        CompressionScheduler(net).add_policy(
            RegularizationPolicy(GroupLassoRegularizer({NAME: (0.1, "Coupled")})), Window.at([0])
        )


def test_threshold_of_elements_and_of_groups():
    linear = nn.Linear(3, 2, bias=False)
    weights = {"weight": torch.tensor([[0.1, 0.3, -0.5], [0.05, -0.1, 0.6]])}
    l1 = L1Regularizer({"weight": 0.1}, "Max")
    l1.bind(linear)
    assert l1.threshold(weights)["weight"].int().tolist() == [[0, 1, 1], [0, 0, 1]]
    l1 = L1Regularizer({"weight": 0.1})
    l1.bind(linear)
    assert l1.threshold(weights) == {}
    for criterion, group, expected in (
        ("Max", "Rows", [[0, 1, 1], [0, 1, 1]]),
        ("Mean_Abs", "Rows", [[0, 0, 1], [0, 0, 1]]),
        ("Mean_Abs", "Cols", [[1, 1, 1], [1, 1, 1]]),
        ("Mean_Abs", "Rows+Cols", [[0, 0, 1], [0, 0, 1]]),
        ("Max", "4D", [[1, 1, 1], [1, 1, 1]]),
    ):
        lasso = GroupLassoRegularizer({"weight": (0.2, group)}, criterion)
        lasso.bind(linear)
        assert lasso.threshold(weights)["weight"].int().tolist() == expected, (criterion, group)


def test_l1_proximal_step_is_soft_thresholding(net):
    l1 = L1Regularizer({NAME: 0.5, "6.bias": 0.1})
    l1.bind(net)
    weights = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    l1.proximal(weights, {NAME: 0.1, "6.bias": 0.2})
    assert torch.equal(weights[NAME], F.softshrink(net[3].weight, 0.05))
    assert torch.equal(weights["6.bias"], F.softshrink(net[6].bias, 0.02))
    assert (weights[NAME] == 0).any()


def test_l2_proximal_step(net):
    l2 = L2Regularizer({NAME: 0.5})
    l2.bind(net)
    weights = {NAME: net[3].weight.detach().clone()}
    l2.proximal(weights, {NAME: 0.1})
    assert torch.allclose(weights[NAME], net[3].weight / 1.05)


@pytest.mark.parametrize("group_type", GROUPS)
def test_group_proximal_step_solves_its_problem(net, group_type):
    """w minimises |w - v|^2 / 2 + t sum |w_g|: block soft thresholding, for nested groups from the inside out."""
    lasso = GroupLassoRegularizer({NAME: (0.4, group_type)})
    lasso.bind(net)
    weights = {NAME: net[3].weight.detach().clone()}
    lasso.proximal(weights, {NAME: 0.5})
    expected = net[3].weight.detach().clone()
    for split in GROUPS[group_type]:
        norms = split(expected).norm(dim=1)
        factors = (1 - 0.2 / norms).clamp_min(0)
        shape = {filters: (-1, 1, 1, 1), channels: (1, -1, 1, 1), kernels: (8, 8, 1, 1), layer: (1, 1, 1, 1)}[split]
        expected = expected * factors.view(shape)
    assert torch.allclose(weights[NAME], expected, atol=1e-7)


def test_problems_of_group_types():
    args = {"reg_regims": {"fc": (0.1, "2D"), "b": (0.1, "Channels+4D"), "c": (0.1, "Coupled"), "w": (0.1, "4D")}}
    shapes = {"fc": torch.Size((4, 2)), "b": torch.Size((4,)), "c": torch.Size((4,)), "w": torch.Size((4,))}
    found = dict(GroupLassoRegularizer.problems(args, shapes))
    assert set(found) == {"reg_regims.fc", "reg_regims.b", "reg_regims.c"}
    assert found["reg_regims.b"] == "Channels needs a weight of 2 dimensions or more; b has shape (4,)"


def run_with(make_run, regularizer, window=None, **args):
    run = make_run(minibatches=2)
    run.scheduler.add_policy(
        RegularizationPolicy(regularizer, RegularizerArgs(**args)), window or Window.between(0, 3, 2), name="r"
    )
    return run


@pytest.mark.parametrize(
    ("when", "zeroed_at"),
    [("minibatch", [0, 1, 4, 5]), ("epoch", [1, 5]), ("end", [5]), ("never", [])],
)
def test_threshold_at(make_run, when, zeroed_at):
    run = run_with(make_run, L1Regularizer({NAME: 0.03}, "Max"), threshold_at=when)
    zeros = []
    run.train(range(4), lambda step: zeros.append(run.zeros(NAME)))
    after_step = zeros[1::2]
    assert [i for i, n in enumerate(after_step) if n > 0] == zeroed_at


def test_weights_grow_back_after_a_threshold_and_keep_mask_ends_that(make_run):
    run = run_with(make_run, L1Regularizer({NAME: 0.003}, "Max"), Window.between(0, 2), keep_mask=True)
    seen = []
    run.train(range(2), lambda step: seen.append(run.weight(NAME) == 0))
    assert (seen[1] & ~seen[3]).any()
    gone = run.zeros(NAME)
    assert gone > 0
    run.train(range(2, 5))
    assert run.zeros(NAME) == gone


@pytest.mark.parametrize("regularizer", [L1Regularizer({NAME: 0.2}), GroupLassoRegularizer({NAME: (0.5, "2D")})])
def test_keep_mask_keeps_what_the_proximal_step_zeroed(make_run, regularizer):
    run = run_with(make_run, regularizer, Window.between(0, 2), mode="proximal", keep_mask=True)
    run.train(range(2))
    gone = run.weight(NAME) == 0
    assert 0 < gone.sum() < gone.numel()
    run.train(range(2, 5))
    assert torch.equal(run.weight(NAME) == 0, gone)


def test_the_loss_names_its_parts(make_run):
    run = run_with(make_run, L1Regularizer({NAME: 0.01})).train([0])
    assert [part.name for part in run.components] == ["L1Regularizer_loss"]
    assert run.components[0].value > 0


def test_parts_of_one_class_are_told_apart_by_their_policies(make_run):
    run = run_with(make_run, L1Regularizer({NAME: 0.01}))
    add = run.scheduler.add_policy
    add(RegularizationPolicy(L2Regularizer({NAME: 0.01})), Window.at([0]), name="alone")
    for name in ("b", "c"):
        add(RegularizationPolicy(L1Regularizer({NAME: 0.02})), Window.at([0]), name=name)
    parts = dict(run.train([0]).components)
    assert list(parts) == ["r.L1Regularizer_loss", "L2Regularizer_loss", "b.L1Regularizer_loss", "c.L1Regularizer_loss"]
    assert float(parts["b.L1Regularizer_loss"]) == pytest.approx(2 * float(parts["r.L1Regularizer_loss"]))


def test_proximal_mode_takes_the_learning_rate_of_each_group(make_run):
    run = run_with(
        make_run, L1Regularizer({NAME: 0.5, "6.weight": 0.5, "0.weight": 0.5}), Window.between(0, 5), mode="proximal"
    )
    run.optimizer = torch.optim.SGD(
        [{"params": [run.weight(NAME)], "lr": 0.1}, {"params": [run.weight("6.weight")], "lr": 0.02}], lr=1.0
    )
    before = {name: run.weight(name).detach().clone() for name in (NAME, "6.weight", "0.weight")}
    grads = {}
    run.scheduler.masks.restore_dense, inner = (
        lambda: (grads.update({n: run.weight(n).grad.clone() for n in before}), inner()),
        run.scheduler.masks.restore_dense,
    )
    run.minibatch(0, 0)
    for name, rate in ((NAME, 0.1), ("6.weight", 0.02)):
        stepped = before[name] - rate * grads[name]
        assert torch.allclose(run.weight(name), F.softshrink(stepped, rate * 0.5), atol=1e-7)
    assert torch.equal(run.weight("0.weight"), before["0.weight"])  # the optimizer does not have it
    assert run.components[0].value > 0
    assert run.zeros(NAME) > 0


def test_a_frozen_parameter_stays_and_is_warned_about(make_run, caplog):
    """Weight decay would not move it either; a threshold that the schedule asks for does."""
    run = make_run()
    frozen, before = run.weight(NAME), run.weight(NAME).detach().clone()
    frozen.requires_grad_(False)
    policy = RegularizationPolicy(L1Regularizer({NAME: 0.5, "6.weight": 0.5}), RegularizerArgs(mode="proximal"))
    run.scheduler.add_policy(policy, Window.between(0, 5), name="r")
    said = f"r: {NAME}: frozen (requires_grad is False), so that the penalty does not change it"
    assert [record.getMessage() for record in caplog.records] == [said]
    run.minibatch(0, 0)
    assert torch.equal(frozen, before)
    frozen.requires_grad_(True)
    run.minibatch(0, 1)
    assert not torch.equal(frozen, before)


def test_proximal_mode_is_refused_where_there_is_no_such_step(make_run):
    with pytest.raises(ValueError, match="GroupVarianceRegularizer has no proximal step: use mode: loss"):
        run_with(make_run, GroupVarianceRegularizer({NAME: (0.1, "Channels")}), mode="proximal")
    run = run_with(make_run, L1Regularizer({NAME: 0.01}), mode="proximal")
    with pytest.raises(
        ValueError, match="r: a proximal step needs the learning rate: give on_minibatch_end the optimizer"
    ):
        run.scheduler.on_minibatch_end(0, 0, 2)


@pytest.mark.parametrize("args", [{}, {"mode": "proximal"}, {"threshold_at": "epoch", "keep_mask": True}])
@pytest.mark.parametrize("kind", ["l1", "lasso", "coupled"])
def test_a_resumed_run_is_the_uninterrupted_one(make_run, kind, args):
    def start():
        regularizer = {
            "l1": lambda: L1Regularizer({NAME: 0.03}, "Max"),
            "lasso": lambda: GroupLassoRegularizer({NAME: (0.03, "Filters")}, "Mean_Abs"),
            "coupled": lambda: GroupLassoRegularizer({NAME: (0.03, "Coupled")}, "Mean_Abs"),
        }[kind]()
        return run_with(make_run, regularizer, Window.between(1, 4), **args)

    whole = start()
    saved = [whole.train([epoch]).save() for epoch in range(5)]
    for epoch in range(4):
        resumed = start().load(saved[epoch]).train(range(epoch + 1, 5))
        assert all(torch.equal(p, whole.weight(n)) for n, p in resumed.model.named_parameters()), epoch
