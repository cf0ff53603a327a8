"""A small training run that tests drive through the scheduler's hooks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, PrunerArgs, PruningPolicy, Step, View, Window

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def small_net() -> nn.Module:
    """Two convolutions with BatchNorm and ReLU between, then a Linear; 8x8 images, 4 classes."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


class Run:
    """A training run whose batches are functions of epoch and minibatch."""

    def __init__(self, optimizer: str = "sgd", minibatches: int = 3, seed: int = 0, traced: bool = True) -> None:
        torch.manual_seed(seed)
        self.model = small_net()
        self.minibatches = minibatches
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = CompressionScheduler(self.model, torch.zeros(1, 3, 8, 8) if traced else None)
        self.components: list = []

    def prune(self, pruner: object, window: Window, name: str | None = None, **args: object) -> Run:
        self.scheduler.add_policy(PruningPolicy(pruner, PrunerArgs(**args)), window, name=name)
        return self

    def weight(self, name: str) -> Tensor:
        return self.model.get_parameter(name)

    def zeros(self, name: str) -> int:
        return int((self.weight(name) == 0).sum())

    def train(self, epochs: Iterable[int], watch: Callable[[Step], None] = lambda step: None) -> Run:
        """Train; `watch` is called before each forward pass and again after each step."""
        for epoch in epochs:
            self.scheduler.on_epoch_begin(epoch, self.optimizer, self.minibatches)
            for i in range(self.minibatches):
                self.minibatch(epoch, i, watch)
            self.scheduler.on_epoch_end(epoch, self.optimizer, {"min": 1.0, "max": 50.0}, self.minibatches)
        return self

    def minibatch(self, epoch: int, i: int, watch: Callable[[Step], None] = lambda step: None) -> None:
        source = torch.Generator().manual_seed(epoch * 1000 + i)
        x, y = torch.randn(16, 3, 8, 8, generator=source), torch.randint(4, (16,), generator=source)
        at = (epoch, i, self.minibatches)
        self.scheduler.on_minibatch_begin(*at, self.optimizer)
        watch(Step(*at))
        loss = F.cross_entropy(self.model(x), y)
        result = self.scheduler.before_backward_pass(*at, loss, self.optimizer, return_loss_components=True)
        self.components = result.loss_components
        self.optimizer.zero_grad()
        result.overall_loss.backward()
        self.scheduler.before_parameter_optimization(*at, self.optimizer)
        self.optimizer.step()
        self.scheduler.on_minibatch_end(*at, self.optimizer)
        watch(Step(*at))

    def save(self) -> bytes:
        file = io.BytesIO()
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> Run:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return self


def view_of(
    model: nn.Module,
    epoch: int = 0,
    window: Window | None = None,
    masks: dict[str, Tensor] | None = None,
    **more: object,
) -> View:
    """What a pruner is shown of a model at an epoch, without a scheduler."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    window = window or Window.between(0, 10)
    return View(Step(epoch), window, weights, masks or {}, model, lambda: None, **more)  # type: ignore[arg-type]


@pytest.fixture
def make_run() -> type[Run]:
    return Run


@pytest.fixture
def make_view() -> Callable[..., View]:
    return view_of


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return small_net()
