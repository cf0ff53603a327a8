"""Pruners that watch training: what they gather, where they find it, and that a resume changes nothing."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from potstill.compression import CompressionScheduler, PruningPolicy, Window
from potstill.compression.pruners import (
    ActivationAPoZRankedFilterPruner,
    ActivationAPoZRankedFilterPruner_AGP,
    ActivationMeanRankedFilterPruner,
    FMReconstructionChannelPruner,
    GradientRankedFilterPruner,
    GradientRankedFilterPruner_AGP,
)
from potstill.compression.pruners.follow_activations import Finder

FIRST, SECOND = "0.weight", "3.weight"


def dead(weight):
    return (~(weight != 0).flatten(1).any(1)).nonzero().flatten().tolist()


class Names(nn.Module):
    """Blocks whose activations are modules with odd names, functions, in place, or not there."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.batch, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.bend, self.drop, self.leak = nn.ReLU(inplace=True), nn.Dropout2d(0.1), nn.LeakyReLU()

    def forward(self, x):
        x = self.bend(self.drop(self.batch(self.one(x))))
        x = F.relu(self.other(self.two(x)))
        x = self.leak(self.three(x))
        return x + self.four(x)


def test_activations_are_found_without_naming_convention():
    model = Names()
    found = {}
    Finder(model, [f"{name}.weight" for name in ("one", "two", "three", "four")], found.update)
    model.eval()(torch.randn(2, 4, 5, 5))
    assert not found
    model.train()(torch.randn(2, 4, 5, 5))
    assert {name: tuple(site) for name, site in found.items()} == {
        "one.weight": (("one", "batch", "drop", "bend"), False),
        "two.weight": (("two", "other"), True),
        "three.weight": (("three", "leak"), False),
        "four.weight": (("four",), True),
    }
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_one_relu_for_several_layers(block):
    """As in torchvision's ResNets: the third call is of the sum, in a bottleneck of other channels too."""
    torch.manual_seed(0)
    model = block(16, 4 if block is Bottleneck else 16)
    names = [f"conv{i}.weight" for i in range(1, 4) if hasattr(model, f"conv{i}")]
    pruner = ActivationAPoZRankedFilterPruner(0.5, names)
    scheduler = CompressionScheduler(model)
    scheduler.add_policy(PruningPolicy(pruner), epochs=[1])
    expected = {name: [] for name in names}
    for name in names:
        norm = model.get_submodule(name.replace("conv", "bn").removesuffix(".weight"))
        norm.register_forward_hook(lambda module, args, out, name=name: expected[name].append((out <= 0).double()))
    for x in torch.randn(3, 5, 16, 6, 6):
        model(x)
    for name in names:
        share = torch.stack(expected[name][1:]).mean((0, 1, 3, 4))  # the first pass finds out where to look
        torch.testing.assert_close(pruner.statistics.mean(name), share)
    assert not any(handle._tips._held for handle in pruner._handles), "no activation is held after the pass"


def gathered(make_run, pruner, measure):
    """Train one epoch, collecting by a hook of the test's own what the pruner should have seen."""
    run = make_run().prune(pruner, Window.at([1]), "p")
    seen = []
    run.model[2].register_forward_hook(lambda module, inputs, output: seen.append(measure(output.detach())))
    run.train([0])
    return run, torch.stack(seen[1:]).double().mean(0)  # the first pass finds out where to look


def test_apoz_prunes_the_filters_with_most_zeros(make_run):
    zeros = lambda out: (out == 0).double().mean((0, 2, 3))  # noqa: E731
    run, expected = gathered(make_run, ActivationAPoZRankedFilterPruner(0.5, [FIRST]), zeros)
    pruner = run.scheduler.policies[0].pruner
    assert torch.allclose(pruner.statistics.mean(FIRST), expected)
    run.train([1])
    assert dead(run.weight(FIRST)) == sorted(expected.argsort(descending=True)[:4].tolist())


def test_mean_activation_prunes_the_least_active_and_says_so(make_run, caplog):
    means = lambda out: out.double().mean((0, 2, 3))  # noqa: E731
    with caplog.at_level(logging.INFO):
        run, expected = gathered(make_run, ActivationMeanRankedFilterPruner(0.5, [FIRST]), means)
    assert "prunes the least active filters; Distiller did the opposite" in caplog.text
    run.train([1])
    assert dead(run.weight(FIRST)) == sorted(expected.argsort()[:4].tolist())


def test_gradient_ranks_by_the_size_of_weight_times_gradient(make_run):
    run = make_run().prune(GradientRankedFilterPruner(0.5, [FIRST]), Window.at([1]), "p")
    products = []
    run.scheduler.masks.mask_gradients, inner = (
        lambda: (products.append((run.weight(FIRST) * run.weight(FIRST).grad).flatten(1).sum(1).abs()), inner()),
        run.scheduler.masks.mask_gradients,
    )
    run.train([0])
    expected = torch.stack(products).double().mean(0)
    run.train([1])
    assert dead(run.weight(FIRST)) == sorted(expected.argsort()[:4].tolist())


@pytest.mark.parametrize("make", [ActivationAPoZRankedFilterPruner, FMReconstructionChannelPruner])
def test_an_empty_batch_adds_nothing(make_run, make):
    """The last part of a batch that several processes share may have no images."""
    runs = [make_run().prune(make(0.5, [SECOND]), Window.at([1]), "p") for _ in range(2)]
    for run in runs:
        run.model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    runs[0].model(torch.zeros(0, 3, 8, 8))
    first, second = (run.scheduler.policies[0].pruner.state_dict() for run in runs)
    assert str(first) == str(second)
    make_run().prune(make(0.5, [SECOND]), Window.at([1]), "p").scheduler.load_state_dict(runs[0].scheduler.state_dict())


def test_gradients_come_one_minibatch_late_where_asked(make_run):
    run = make_run().prune(GradientRankedFilterPruner(0.5, [FIRST]), Window.at([0]), "p", skip_first_minibatch=True)
    counts = []
    run.train([0], lambda step: counts.append(len(dead(run.weight(FIRST)))))
    assert counts == [0, 0, 4, 4, 4, 4]


def test_nothing_gathered_yet_is_said(make_run, caplog):
    run = make_run().prune(ActivationAPoZRankedFilterPruner(0.5, [FIRST]), Window.at([0]), "p").train([0])
    assert f"{FIRST}: nothing to rank its structures by yet" in caplog.text
    assert not run.scheduler.masks.of("p")


def test_linear_neurons_have_activations_too(make_run):
    run = make_run().prune(ActivationMeanRankedFilterPruner(0.5, ["6.weight"]), Window.at([1]), "p").train([0, 1])
    assert len(dead(run.weight("6.weight"))) == 2


def test_weights_without_filters_are_refused(make_run):
    with pytest.raises(ValueError, match=r"Filters needs a weight of 2 dimensions or more; 1.weight has shape \(8,\)"):
        make_run().prune(ActivationAPoZRankedFilterPruner(0.5, ["1.weight"]), Window.at([1]))


@pytest.mark.parametrize("kind", [ActivationAPoZRankedFilterPruner_AGP, GradientRankedFilterPruner_AGP])
def test_hooks_are_gone_after_the_window(make_run, kind):
    run = make_run().prune(kind(0.1, 0.5, [FIRST]), Window.between(1, 4, 2), "p")
    run.train(range(3))
    assert has_hooks(run.model)
    run.train([3])
    assert not has_hooks(run.model)


def has_hooks(model):
    hooks = [module._forward_hooks for module in model.modules()]
    return any(hooks) or any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_a_copied_model_is_not_watched(make_run):
    run = make_run().prune(ActivationAPoZRankedFilterPruner(0.5, [FIRST]), Window.at([5]), "p").train([0])
    before = run.scheduler.policies[0].state_dict()["pruner"]["statistics"]["counts"]
    copy.deepcopy(run.model)(torch.randn(4, 3, 8, 8))
    assert run.scheduler.policies[0].state_dict()["pruner"]["statistics"]["counts"] == before


def test_a_pruner_shared_by_two_policies_watches_until_both_are_over(make_run):
    pruner = ActivationAPoZRankedFilterPruner(0.5, [FIRST])
    run = make_run().prune(pruner, Window.at([1]), "a").prune(pruner, Window.at([3]), "b").train(range(3))
    assert has_hooks(run.model)
    assert not has_hooks(run.train([3]).model)
    assert set(run.scheduler.masks.of("b")) == set(run.scheduler.masks.of("a"))


def test_reconstruction_refits_the_outputs(make_run):
    """On new images it is nearly as good as the best weights for these very images, and better than the plain mask."""
    run = make_run(minibatches=10)
    run.optimizer.param_groups[0].update(lr=0.0)
    run.prune(FMReconstructionChannelPruner(0.5, [SECOND]), Window.at([1]), "p")
    before = copy.deepcopy(run.model[3])
    run.train([0])
    run.scheduler.on_epoch_begin(1, run.optimizer, 10)
    keep = (run.scheduler.masks.of("p")[SECOND] != 0).transpose(0, 1).flatten(1).any(1)
    assert int(keep.sum()) == 4
    middle = run.model[:3](torch.randn(64, 3, 8, 8)).detach()
    full = before(middle) - before.bias.view(-1, 1, 1)
    patches = F.unfold(middle[:, keep], 3, padding=1, stride=4).transpose(1, 2).flatten(0, 1)
    points = full.flatten(2).transpose(1, 2).flatten(0, 1)
    best = (patches @ torch.linalg.lstsq(patches, points).solution - points).norm()
    refitted = (run.model[3](middle) - run.model[3].bias.view(-1, 1, 1) - full).norm()
    masked = (F.conv2d(middle, before.weight * keep.view(1, -1, 1, 1), None, 4, 1) - full).norm()
    assert best <= refitted < 1.3 * best
    assert refitted < 0.9 * masked


def test_reconstruction_needs_samples_and_plain_layers(make_run, caplog):
    run = make_run().prune(FMReconstructionChannelPruner(0.5, [SECOND]), Window.at([0]), "p").train([0])
    assert "no samples yet, so its weights are not refitted" in caplog.text
    assert run.zeros(SECOND) == 288
    model = make_run()
    model.model[3] = nn.Conv1d(2, 2, 1)
    with pytest.raises(ValueError, match="only Linear layers and Conv2d without groups, zero-padded, can be refitted"):
        model.prune(FMReconstructionChannelPruner(0.5, [SECOND]), Window.at([0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ActivationAPoZRankedFilterPruner_AGP(0, 0.6, [FIRST, SECOND]),
        lambda: ActivationMeanRankedFilterPruner(0.4, [FIRST]),
        lambda: GradientRankedFilterPruner_AGP(0.1, 0.6, [FIRST, SECOND]),
        lambda: FMReconstructionChannelPruner(0.5, [SECOND, "6.weight"], ranking_noise=0.5),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(make_run, make):
    def start():
        return make_run().prune(make(), Window.between(1, 4), "p")

    whole = start()
    saved = [whole.train([epoch]).save() for epoch in range(5)]
    assert whole.zeros(FIRST) + whole.zeros(SECOND) > 0
    for epoch in range(4):
        resumed = start().load(saved[epoch]).train(range(epoch + 1, 5))
        assert all(torch.equal(p, whole.weight(n)) for n, p in resumed.model.named_parameters()), epoch
