"""Channels of a whole network in one order: counts, what is hidden with them, scores by gradient, resumes."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy, dry_run
from potstill.compression.pruners.global_structures import GlobalStructurePruner, GlobalStructurePruner_AGP

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
WEIGHTS = ["0.weight", "3.weight"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )  # fmt: skip


def run(pruner, epochs, model=None, start=0, states=None):
    model = model or network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scheduler = CompressionScheduler(model, example_inputs=X)
    scheduler.add_policy(PruningPolicy(pruner), starting_epoch=1, ending_epoch=4)
    if states:
        model.load_state_dict(states[0])
        scheduler.load_state_dict(states[1])
    counts = []
    for epoch in range(start, epochs):
        scheduler.on_epoch_begin(epoch, optimizer)
        counts.append(sum(int((model[i].weight.flatten(1) == 0).all(1).sum()) for i in (0, 3)))
        scheduler.on_minibatch_begin(epoch, 0, 1, optimizer)
        optimizer.zero_grad()
        loss = model(X).square().sum()
        scheduler.before_backward_pass(epoch, 0, 1, loss, optimizer).backward()
        scheduler.before_parameter_optimization(epoch, 0, 1, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1, optimizer)
    return model, scheduler, counts


def test_the_count_is_over_all_layers_and_the_lowest_go():
    model = network()
    model[3].weight.data[[1, 4, 5, 7, 8]] *= 1e-4
    model[6].weight.data.view(3, 12, 4)[:, [1, 4, 5, 7, 8]] *= 1e-4
    run(GlobalStructurePruner(0.25, WEIGHTS), 2, model)
    assert int((model[0].weight.flatten(1) == 0).all(1).sum()) == 0
    assert (model[3].weight.flatten(1) == 0).all(1).nonzero().flatten().tolist() == [1, 4, 5, 7, 8]
    assert model[3].bias[[1, 4, 5, 7, 8]].tolist() == [0] * 5


def test_the_count_follows_agp():
    _, _, counts = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS), 5)
    assert counts == [0, *[int(20 * (0.5 - 0.4 * (1 - t / 2) ** 3) + 1e-9) for t in range(3)], 10]


def test_scopes():
    for scope, expected in (("layer", (4, 6)), ("global", (8 - 1, 3))):
        model = network()
        model[0].weight.data *= 1e-3
        model[1].weight.data *= 1e-3
        model[3].weight.data *= 10
        run(GlobalStructurePruner(0.5, WEIGHTS, score="fpgm", scope=scope), 2, model)
        zeros = tuple(int((model[i].weight.flatten(1) == 0).all(1).sum()) for i in (0, 3))
        assert zeros == expected  # one channel of a layer always stays


def test_thinning_removes_them_all():
    model, scheduler, _ = run(GlobalStructurePruner(0.5, WEIGHTS, score="lamp"), 4)
    scheduler.thin()
    assert model[0].out_channels + model[3].out_channels == 10


def test_scores_by_gradient_are_means_over_minibatches():
    model, scheduler, _ = run(GlobalStructurePruner(0.5, WEIGHTS, score="taylor", scope="global"), 1)
    expected = copy.deepcopy(model)  # one step was made with these gradients, by weights of before it
    before = network()
    before(X).square().sum().backward()
    score = {i: (before[i].weight.grad * before[i].weight).detach().flatten(1).sum(1).square() for i in (0, 3)}
    scheduler.on_epoch_begin(1)
    ranked = sorted((float(v), i, j) for i in (0, 3) for j, v in enumerate(score[i]) if v < score[i].max())
    lowest = ranked[:10]  # the best of each layer stays
    for _, i, j in lowest:
        assert bool((model[i].weight[j] == 0).all())
    assert bool((expected[0].weight != 0).any())


@pytest.mark.parametrize("score", ["taylor", "activation", "hessian"])
def test_resumed_equals_uninterrupted(score):
    whole, _, counts = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS, score=score), 5)
    cut, scheduler, _ = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS, score=score), 2)
    states = copy.deepcopy((cut.state_dict(), scheduler.state_dict()))
    again, _, _ = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS, score=score), 5, start=2, states=states)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    assert counts[-1] == 10


def lowest_went(model, score, number):
    ranked = sorted((v, i, j) for i in score for j, v in enumerate(score[i].tolist()) if v < score[i].max())
    for _, i, j in ranked[:number]:  # the best of each layer stays
        assert bool((model[i].weight[j] == 0).all())


def test_activations_are_means_of_absolute_outputs():
    model, scheduler, _ = run(GlobalStructurePruner(0.5, WEIGHTS, score="activation", scope="global"), 1)
    scheduler.on_epoch_begin(1)
    before = network()
    first = before[0](X)
    second = before[3](before[2](before[1](first)))
    lowest_went(model, {0: first.abs().mean((0, 2, 3)), 3: second.abs().mean((0, 2, 3))}, 10)


class Apart(nn.Module):
    """Each weight has an output of its own, so that the Hessian of the sum of squares is diagonal: 2 x input^2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.out = nn.Linear(1, 6, bias=False), nn.Linear(6, 1, bias=False)

    def forward(self, x):
        return self.out(self.layer(x))


def test_curvature_is_exact_where_the_hessian_is_diagonal():
    """With signs for z, z * (H z) is then the diagonal itself, whatever the signs."""
    model, x = Apart(), torch.tensor([[1.0], [3.0]])
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scheduler = CompressionScheduler(model, example_inputs=x)
    pruner = GlobalStructurePruner(0.5, ["layer.weight"], score="hessian")
    scheduler.add_policy(PruningPolicy(pruner), epochs=[1])
    scale = torch.tensor([5.0, 1, 2, 9, 3, 7])
    expected = 0.5 * (2 * scale * 10) * model.layer.weight.detach()[:, 0].square()  # 1 + 9 are the squared inputs
    scheduler.on_epoch_begin(0, optimizer)
    scheduler.on_minibatch_begin(0, 0, 1, optimizer)
    scheduler.before_backward_pass(0, 0, 1, (scale * model.layer(x).square()).sum(), optimizer)
    scheduler.on_epoch_begin(1, optimizer)
    gone = (model.layer.weight == 0).all(1).nonzero().flatten().tolist()
    assert gone == sorted(expected.argsort()[:3].tolist())


def test_curvature_needs_the_loss_and_says_so():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scheduler = CompressionScheduler(model, example_inputs=X)
    scheduler.add_policy(PruningPolicy(GlobalStructurePruner(0.5, WEIGHTS, score="hessian")), epochs=[1])
    attachment = scheduler.attach(optimizer, 1)
    model(X).square().sum().backward()
    with pytest.raises(ValueError, match=r"hand it over before the backward pass \(loss = attachment.loss\(loss\)"):
        optimizer.step()
    optimizer.zero_grad()
    attachment.loss(model(X).square().sum()).backward()
    optimizer.step()
    assert int((model[0].weight.flatten(1) == 0).all(1).sum() + (model[3].weight.flatten(1) == 0).all(1).sum()) == 10


def test_where_nothing_was_seen_nothing_goes_and_it_is_said(caplog):
    model = network()
    scheduler = CompressionScheduler(model, example_inputs=X)
    scheduler.add_policy(PruningPolicy(GlobalStructurePruner(0.5, WEIGHTS, score="activation")), epochs=[0], name="p")
    scheduler.on_epoch_begin(0)
    assert "p: nothing to rank channels by yet, so none is pruned now" in caplog.text
    assert bool((model[0].weight != 0).any(1).all())


@pytest.mark.parametrize("score", ["taylor", "activation", "hessian"])
def test_dry_runs_see_what_they_rank_by(score):
    pruner = {"class": "GlobalStructurePruner", "desired_sparsity": 0.5, "weights": WEIGHTS, "score": score}
    course = dry_run({"pruners": {"p": pruner}, "policies": [{"pruner": {"instance_name": "p"}, "epochs": [1]}]},
                     network(), 2, X)  # fmt: skip
    assert course["parameters"][1] < 0.8 * course["parameters"][0]


def test_without_example_inputs_it_is_refused():
    scheduler = CompressionScheduler(network())
    with pytest.raises(ValueError, match="GlobalStructurePruner needs to know what belongs together"):
        scheduler.add_policy(PruningPolicy(GlobalStructurePruner(0.5, WEIGHTS)), epochs=[0])


@pytest.mark.parametrize("score", ["l1", "taylor", "hessian", "activation"])
def test_depthwise_filters_that_are_listed_too_go_with_what_makes_their_channels(score):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(96, 3)
    )
    run(GlobalStructurePruner(0.4, ["0.weight", "1.weight", "3.weight"], score=score), 3, model)
    made, passed, others = ((model[i].weight.flatten(1) == 0).all(1) for i in (0, 1, 3))
    assert torch.equal(made, passed)
    assert int(made.sum()) + int(others.sum()) == int(0.4 * 14)  # 8 channels and 6; those of both weights count once
