"""What `docs/distiller.md` says of differences, each against a formula or a computation of its own."""

import math

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, ScheduleError, dict_config
from potstill.models import create_model
from potstill.thinning import count_macs

INPUTS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def net(width=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 5),
    )  # fmt: skip


def scheduled(model, cls, epochs, section="pruners", batches=1, lr=0.05, **args):
    """A schedule of one policy, and what trains a model by it: `train(epoch)` for one epoch."""
    kind = section.removesuffix("s")
    schedule = {
        section: {"it": {"class": cls, **args}},
        "policies": [{kind: {"instance_name": "it"}, "starting_epoch": epochs[0], "ending_epoch": epochs[1]}],
    }
    optimizer = torch.optim.SGD(model.parameters(), lr)
    scheduler = dict_config(model, optimizer, schedule, example_inputs=INPUTS)

    def train(epoch):
        scheduler.on_epoch_begin(epoch, optimizer)
        rate = optimizer.param_groups[0]["lr"]
        model.train()
        for step in range(batches):
            scheduler.on_minibatch_begin(epoch, step, batches, optimizer)
            inputs = INPUTS.roll(step, 0)[: 3 + step]
            loss = scheduler.before_backward_pass(epoch, step, batches, model(inputs)[:, step].sum(), optimizer)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, step, batches, optimizer)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, step, batches, optimizer)
        scheduler.on_epoch_end(epoch, optimizer)
        return rate

    return scheduler, train


@pytest.mark.parametrize(
    ("cls", "args"),
    [
        ("ActivationAPoZRankedFilterPruner_AGP", {"initial_sparsity": 0.2, "final_sparsity": 0.7}),
        ("RandomRankedFilterPruner", {"desired_sparsity": 0.5}),
        ("RandomLevelStructureParameterPruner", {"sparsity_range": [0.2, 0.8]}),
    ],
)
def test_hard_masks_never_come_back(cls, args):
    scheduler, train = scheduled(net(), cls, (1, 6), group_type="Filters", weights=["0.weight"], **args)
    gone = torch.zeros(8, 3, 3, 3, dtype=torch.bool)
    for epoch in range(6):
        train(epoch)
        mask = scheduler.masks["0.weight"].mask
        now = gone if mask is None else mask == 0
        assert now[gone].all()
        gone = now
    assert gone.any() and not gone.all()


def test_gradients_are_averaged_over_the_minibatches():
    """The score is the mean over minibatches of |sum over the filter of weight x gradient|."""
    model = net()
    args = {"group_type": "Filters", "desired_sparsity": 0.5, "weights": ["0.weight"]}
    scheduler, train = scheduled(model, "GradientRankedFilterPruner", (1, 2), batches=3, lr=0.0, **args)
    sums = []
    model[0].weight.register_hook(lambda grad: sums.append((grad * model[0].weight.detach()).flatten(1).sum(1)))
    train(0)
    scheduler.on_epoch_begin(1, None)
    kept = scheduler.masks["0.weight"].mask.flatten(1).any(1)
    best = set(torch.stack(sums).abs().mean(0).topk(4).indices.tolist())
    assert len(sums) == 3 and set(kept.nonzero().flatten().tolist()) == best
    assert best != set(sums[-1].topk(4).indices.tolist())  # what Distiller kept: the last gradient, with its sign


def test_reconstruction_leaves_the_bias_out_of_the_fit():
    """The second input channel is twice the first: the fit without it is exact, if the bias is no part of it."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(2, 4, 1)
            nn.init.constant_(self.conv.bias, 3.0)
            self.conv.weight.data[:, 1] *= 0.1  # the smaller of the two

        def forward(self, x):
            return self.conv(torch.cat([x[:, :1], 2 * x[:, :1]], 1))

    model = Twice()
    args = {"desired_sparsity": 0.5, "weights": ["conv.weight"], "magnitude_fn": "l2", "ranking_noise": 0.0}
    _, train = scheduled(model, "FMReconstructionChannelPruner", (1, 2), lr=0.0, **args)
    before = model.conv.weight.detach().clone()
    outputs = model(INPUTS).detach()
    train(0)
    train(1)
    assert not model.conv.weight[:, 1].any()
    assert torch.allclose(model.conv.weight[:, 0], before[:, 0] + 2 * before[:, 1], atol=1e-5)
    assert torch.allclose(model(INPUTS), outputs, atol=1e-5)


def test_magnitude_and_noise_of_the_ranking_are_taken_where_the_class_has_them():
    fitted = {"desired_sparsity": 0.5, "weights": ["3.weight"], "magnitude_fn": "l2", "ranking_noise": 0.3}
    scheduled(net(), "FMReconstructionChannelPruner", (1, 2), **fitted)
    plain = {"desired_sparsity": 0.5, "weights": ["3.weight"], "group_type": "Filters", "magnitude_fn": "l2"}
    with pytest.raises(ScheduleError, match="magnitude_fn"):
        scheduled(net(), "L1RankedStructureParameterPruner", (1, 2), **plain)


@pytest.mark.parametrize(("group", "dim"), [("Rows", 0), ("Cols", 1)])
@pytest.mark.parametrize("section", ["pruners", "regularizers"])
def test_mean_of_rows_and_columns_divides_by_their_length(group, dim, section):
    """Rows are inputs: the stored weight is (outputs, inputs), so a row runs along its first dimension."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    means = model[1].weight.detach().abs().mean(dim)
    threshold = means.sort().values[2:4].mean().item()
    cls = "StructureParameterPruner" if section == "pruners" else "GroupLassoRegularizer"
    args = {"reg_regims": {"1.weight": [threshold, group]}, "threshold_criteria": "Mean_Abs"}
    scheduler, _ = scheduled(model, cls, (0, 2), section, lr=0.0, **args)
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 2)
    scheduler.on_minibatch_end(0, 0, 2)
    assert torch.equal(model[1].weight.any(dim), means > threshold)


def test_group_lasso_has_nothing_under_the_root():
    model = net()
    model[0].weight.data[2:5] = 0
    args = {"reg_regims": {"0.weight": [0.1, "Filters"], "3.weight": [0.2, "Channels"]}}
    scheduler, _ = scheduled(model, "GroupLassoRegularizer", (0, 1), "regularizers", **args)
    scheduler.on_epoch_begin(0)
    zero = torch.zeros((), requires_grad=True)
    total = scheduler.before_backward_pass(0, 0, 1, zero)
    filters = sum(0.1 * math.sqrt(sum(w**2 for w in f.flatten().tolist())) for f in model[0].weight)
    channels = sum(0.2 * math.sqrt(sum(w**2 for w in c.flatten().tolist())) for c in model[3].weight.transpose(0, 1))
    assert float(total) == pytest.approx(filters + channels, rel=1e-6)
    total.backward()
    assert not model[0].weight.grad[2:5].any() and model[0].weight.grad[0].any()


def rates(cls, epochs, count, lr=0.4, **args):
    """The rate of each epoch."""
    _, train = scheduled(net(), cls, epochs, "lr_schedulers", lr=lr, **args)
    return [train(epoch) for epoch in range(count)]


def test_polynomial_rate_stays_zero_after_its_end():
    found = rates("PolynomialLR", (0, 8), 8, T_max=5, power=2)
    assert found == pytest.approx([0.4 * max(0.0, 1 - epoch / 5) ** 2 for epoch in range(8)])


def test_a_milestone_that_stands_twice_acts_twice():
    found = rates("MultiStepMultiGammaLR", (0, 6), 6, milestones=[2, 4, 4], gammas=[0.5, 0.1, 0.2])
    assert found == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.2 * 0.1 * 0.2, 0.2 * 0.1 * 0.2])


def test_cyclic_rates_begin_with_their_window():
    args = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": False}
    cycle = [0.01, 0.055, 0.1, 0.055, 0.01, 0.055]
    assert rates("CyclicLR", (0, 6), 6, **args) == pytest.approx(cycle)
    assert rates("CyclicLR", (3, 6), 6, **args) == pytest.approx([0.4, 0.4, 0.4, 0.4, *cycle[4:]])


def test_residual_convolutions_without_a_leader_keep_what_another_one_makes():
    """As in Distiller's resnet20_filters.schedule_agp.yaml: channels of layer2 that not all four producers prune."""
    model = create_model("resnet20_cifar")
    torch.manual_seed(3)
    producers = [f"layer2.{name}.weight" for name in ("0.conv2", "0.downsample.0", "1.conv2", "2.conv2")]
    own = [f"layer2.{block}.conv1.weight" for block in range(3)]
    inputs = torch.randn(2, 3, 32, 32)
    scheduler = CompressionScheduler(model, inputs)
    for name in (*producers, *own):
        weight = model.get_parameter(name)
        kept = torch.rand(len(weight)).argsort() >= 16
        scheduler.masks.set("pruner", name, kept.view(-1, 1, 1, 1).expand_as(weight))
        norm = name.replace("downsample.0", "downsample.1").replace("conv", "bn")
        for vector in (norm, norm.replace("weight", "bias")):
            scheduler.masks.set("pruner", vector, kept)
    dead = torch.stack([~scheduler.masks[name].mask.flatten(1).any(1) for name in producers]).all(0)
    scheduler.thin()
    stays = 32 - int(dead.sum())
    assert model.layer2[0].conv2.weight.shape == (stays, 16, 3, 3)
    assert model.layer2[1].conv1.weight.shape == (16, stays, 3, 3)
    outside = 432 * 1024 + 6 * 2304 * 1024 + (64 * 64 * 9 * 5) * 64 + 640
    inside = (16 * 16 * 9 + 5 * 16 * stays * 9 + 16 * stays) * 256 + (stays * 64 * 9 + stays * 64) * 64
    assert count_macs(model, inputs) == outside + inside


def test_with_a_leader_distillers_sizes_come_out():
    """The numbers in the header of resnet20_filters.schedule_agp.yaml: MACs, and the weights of the table below it."""
    ranked = {"class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5}
    summed = [f"module.layer2.{name}.weight" for name in ("0.downsample.0", "0.conv2", "1.conv2", "2.conv2")]
    schedule = {
        "pruners": {
            "own": {**ranked, "weights": [f"module.layer2.{block}.conv1.weight" for block in range(3)]},
            "led": {**ranked, "weights": summed, "group_dependency": "Leader"},
        },
        "extensions": {"thin": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
        "policies": [
            {"pruner": {"instance_name": "own"}, "epochs": [0]},
            {"pruner": {"instance_name": "led"}, "epochs": [0]},
            {"extension": {"instance_name": "thin"}, "epochs": [0]},
        ],
    }
    model = create_model("resnet20_cifar")
    scheduler = dict_config(model, None, schedule, example_inputs=torch.randn(2, 3, 32, 32))
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 1)
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
    assert (count_macs(model, torch.randn(1, 3, 32, 32)), weights) == (30_655_104, 223_536)


@pytest.mark.parametrize(("level", "stays"), [(0.95, 1), (0.9, 1), (1.0, 0)])
def test_only_a_level_of_one_takes_all_structures(level, stays):
    """ceil(0.95 x 8) and ceil(0.9 x 8) are 8; thinning of all keeps one, as zeros."""
    model = net().eval()
    args = {"group_type": "Filters", "desired_sparsity": level, "rounding_fn": "ceil", "weights": ["0.weight"]}
    scheduler, _ = scheduled(model, "L1RankedStructureParameterPruner", (0, 1), **args)
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 1)
    assert int(model[0].weight.flatten(1).any(1).sum()) == stays
    expected = model(INPUTS)
    scheduler.thin()
    assert model[0].out_channels == 1 and torch.allclose(model(INPUTS), expected, atol=1e-5)
