"""Channels of a whole network in one order: counts, what is hidden with them, scores by gradient, resumes."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, PruningPolicy
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
        model(X).square().sum().backward()
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


def test_resumed_equals_uninterrupted():
    whole, _, _ = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS, score="taylor"), 5)
    cut, scheduler, _ = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS, score="taylor"), 2)
    states = copy.deepcopy((cut.state_dict(), scheduler.state_dict()))
    again, _, _ = run(GlobalStructurePruner_AGP(0.1, 0.5, WEIGHTS, score="taylor"), 5, start=2, states=states)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))


def test_without_example_inputs_it_is_refused():
    scheduler = CompressionScheduler(network())
    with pytest.raises(ValueError, match="GlobalStructurePruner needs to know what belongs together"):
        scheduler.add_policy(PruningPolicy(GlobalStructurePruner(0.5, WEIGHTS)), epochs=[0])
