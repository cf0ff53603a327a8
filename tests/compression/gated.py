"""Small networks with gates, and a training run over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, RegularizationPolicy
from potstill.compression.regularizers import L0Regularizer


class Plain(nn.Module):
    """Linear, activation, Linear, activation, Linear; inputs of shape (N, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.relu(self.a(x)))))


class Depthwise(nn.Module):
    """A depthwise convolution between two 1x1 convolutions with BatchNorm; inputs of shape (N, 3, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.expand_bn = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depth, self.depth_bn = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.project, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.expand_bn(self.expand(x)))
        x = torch.relu(self.depth_bn(self.depth(x)))
        return self.head(self.project(x).mean((2, 3)))


class Residual(nn.Module):
    """Two layers that add to one stream: their channels have one gate each; inputs of shape (N, 3, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.inner_bn = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.outer, self.outer_bn = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_bn(self.stem(x)))
        y = torch.relu(self.inner_bn(self.inner(x)))
        x = torch.relu(x + self.outer_bn(self.outer(y)))
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """One layer called twice, one weight under two names; inputs of shape (N, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.again, self.head = (
            nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3),
        )  # fmt: skip
        self.again.weight = self.twice.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        return self.head(torch.relu(self.again(x)))


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], list[str]]] = {
    "plain": (Plain, (6,), ["a.weight", "b.weight"]),
    "depthwise": (Depthwise, (3, 6, 6), ["expand.weight", "project.weight"]),
    "residual": (Residual, (3, 6, 6), ["inner.weight", "outer.weight"]),
    "tied": (Tied, (6,), ["first.weight"]),
}


class GatedRun:
    """A model with gates under a scheduler, and batches that are functions of epoch and minibatch."""

    def __init__(
        self, case: str = "residual", epochs: tuple[int, int] = (0, 2), minibatches: int = 4, **settings
    ) -> None:
        make, self.shape, weights = CASES[case]
        torch.manual_seed(0)
        self.model = make()
        randomize(self.model)
        self.minibatches = minibatches
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.02, momentum=0.9)
        self.scheduler = CompressionScheduler(self.model, torch.zeros(2, *self.shape))
        self.gates = L0Regularizer(**{"weights": weights, "strength": 0.5} | settings)
        self.policy = RegularizationPolicy(self.gates)
        self.scheduler.add_policy(self.policy, starting_epoch=epochs[0], ending_epoch=epochs[1], name="l0")

    def batch(self, epoch: int, minibatch: int, size: int = 8) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1000 * epoch + minibatch)
        return torch.randn(size, *self.shape, generator=generator), torch.randint(3, (size,), generator=generator)

    def step(self, epoch: int, i: int) -> Tensor:
        n, scheduler, optimizer = self.minibatches, self.scheduler, self.optimizer
        images, labels = self.batch(epoch, i)
        scheduler.on_minibatch_begin(epoch, i, n, optimizer)
        loss = F.cross_entropy(self.model(images), labels)
        loss = scheduler.before_backward_pass(epoch, i, n, loss, optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(epoch, i, n, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, i, n, optimizer)
        return loss.detach()

    def train(self, *epochs: int) -> GatedRun:
        self.model.train()
        for epoch in epochs:
            self.scheduler.on_epoch_begin(epoch, self.optimizer, self.minibatches)
            for i in range(self.minibatches):
                self.step(epoch, i)
            self.scheduler.on_epoch_end(epoch, self.optimizer, {}, self.minibatches)
        return self

    def begin(self) -> GatedRun:
        """Start the window without a step."""
        self.scheduler.on_epoch_begin(self.policy.window.start, self.optimizer, self.minibatches)
        return self

    def set_gates(self, log_alpha: Tensor) -> None:
        with torch.no_grad():
            self.gates._gates.log_alpha.copy_(log_alpha)

    def spread_gates(self, low: float = -4, high: float = 4) -> Tensor:
        """Gates from well shut to well open, in an order without a pattern."""
        count = len(self.gates._gates)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
        self.set_gates(torch.linspace(low, high, count)[order])
        return self.gates._gates.log_alpha.detach().clone()

    @torch.no_grad()
    def outputs(self) -> Tensor:
        was = self.model.training
        result = self.model.eval()(self.batch(99, 0)[0])
        self.model.train(was)
        return result


def randomize(model: nn.Module) -> None:
    """Random affine parameters and statistics of norms, so that errors cannot hide behind ones and zeros."""
    generator = torch.Generator().manual_seed(11)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))


def with_factors(model: nn.Module, factors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """The model's outputs with some parameters multiplied, by torch's own functional call."""
    scaled = {name: model.get_parameter(name) * factor for name, factor in factors.items()}
    return functional_call(model, scaled, (inputs,))
