"""Penalties add their gradients in place: scaled, accumulated, for trained parameters, also without hooks."""

import pytest
import torch
from torch.nn import functional as F

from potstill.compression import RegularizationPolicy, Window
from potstill.compression.regularizers import GroupLassoRegularizer, L1Regularizer
from potstill.compression.regularizers.penalty import add_penalties

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
    assert value == pytest.approx(0.1 * float(net[3].weight.abs().sum() + net[6].weight.detach().abs().sum()))


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
