"""Penalties add their gradients in place: scaled, accumulated, for trained parameters, also without hooks."""

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from potstill.compression import RegularizationPolicy, Window
from potstill.compression.regularizers import GroupLassoRegularizer, L1Regularizer, L2Regularizer
from potstill.compression.regularizers.in_place_gradients import add_penalties

NAME, LAST = "3.weight", "6.weight"


def test_gradients_follow_the_scale_of_the_loss_and_accumulate(net):
    """As with loss scaling or gradient accumulation; two penalties of one loss share a node."""
    l1, lasso = L1Regularizer({NAME: 0.1}), GroupLassoRegularizer({NAME: (0.2, "Filters")})
    weights = dict(net.named_parameters())
    images = torch.randn(2, 3, 8, 8)
    for regularizer in (l1, lasso):
        regularizer.bind(net)

    def backward(scale):
        loss = net(images).square().sum()
        for regularizer in (l1, lasso):
            loss, _ = add_penalties(loss, regularizer.penalties(weights))
        (loss * scale).backward()
        return loss

    value = backward(8.0)
    backward(0.5)
    w = net[3].weight
    expected = net(images).square().sum() + 0.1 * w.abs().sum() + 0.2 * w.flatten(1).norm(dim=1).sum()
    (grad,) = torch.autograd.grad(expected, w)
    assert torch.allclose(value, expected)
    assert torch.allclose(w.grad, 8.5 * grad, rtol=1e-4, atol=1e-5)


def test_a_frozen_parameter_gets_no_gradient(net):
    net[3].weight.requires_grad_(False)
    l1 = L1Regularizer({NAME: 0.1, LAST: 0.1})
    l1.bind(net)
    loss, value = add_penalties(net(torch.randn(2, 3, 8, 8)).sum(), l1.penalties(dict(net.named_parameters())))
    loss.backward()
    assert net[3].weight.grad is None
    assert float(value) == pytest.approx(0.1 * float(net[3].weight.abs().sum() + net[6].weight.detach().abs().sum()))


def test_attached_to_the_optimizer_penalties_are_the_same(make_run):
    """Without hooks in the loop the terms reach the gradients before the step."""

    def start():
        run = make_run(minibatches=2)
        for regularizer in (L1Regularizer({NAME: 0.05}), GroupLassoRegularizer({NAME: (0.1, "Filters")})):
            run.scheduler.add_policy(RegularizationPolicy(regularizer), Window.between(0, 2))
        return run

    hooked, attached = start().train([0]), start()
    attached.scheduler.attach(attached.optimizer, attached.minibatches)
    for i in range(attached.minibatches):
        source = torch.Generator().manual_seed(i)
        x, y = torch.randn(16, 3, 8, 8, generator=source), torch.randint(4, (16,), generator=source)
        attached.optimizer.zero_grad()
        F.cross_entropy(attached.model(x), y).backward()
        attached.optimizer.step()
    assert torch.allclose(attached.weight(NAME), hooked.weight(NAME), atol=1e-6)


@pytest.mark.parametrize("view", [False, True])
def test_data_parallel_averaging_does_not_overwrite_penalties(net, tmp_path, view):
    """DistributedDataParallel writes averaged gradients when the backward pass ends: penalties come after that."""
    l1 = L1Regularizer({NAME: 0.1})
    l1.bind(net)
    images, weights = torch.randn(2, 3, 8, 8), dict(net.named_parameters())
    expected = net(images).square().sum() + 0.1 * net[3].weight.abs().sum()
    (grad,) = torch.autograd.grad(expected, net[3].weight)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=view)
        for _ in range(2):  # buckets are rebuilt after the first pass
            net.zero_grad()
            loss, _ = add_penalties(parallel(images).square().sum(), l1.penalties(weights))
            loss.backward()
            assert torch.allclose(net[3].weight.grad, grad, rtol=1e-4, atol=1e-5)
    finally:
        distributed.destroy_process_group()


def test_a_loss_without_gradient_gets_that_of_the_penalty(net):
    """A loss of parts that are all frozen is still trained towards zero."""
    l1 = L1Regularizer({NAME: 0.1})
    l1.bind(net)
    loss, _ = add_penalties(torch.ones(()), l1.penalties(dict(net.named_parameters())))
    loss.backward()
    assert torch.equal(net[3].weight.grad, 0.1 * net[3].weight.detach().sign())


def test_many_elements_and_few_elements_give_the_same(net, monkeypatch):
    """Few are treated as one vector, many one tensor after the other."""
    l2, weights = L2Regularizer({NAME: 0.1, LAST: 0.3}), dict(net.named_parameters())
    l2.bind(net)
    results = []
    for limit in (0, 2**20):
        monkeypatch.setattr("potstill.compression.regularizers.l1_l2.AT_ONCE", limit)
        net.zero_grad()
        loss, _ = add_penalties(torch.ones(()), l2.penalties(weights))
        loss.backward()
        results.append((loss.detach(), net[3].weight.grad, net[6].weight.grad))
    assert all(torch.allclose(few, many) for few, many in zip(*results, strict=True))
