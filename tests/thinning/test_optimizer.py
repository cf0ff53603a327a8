"""Optimizer and masks go along: training continues as the masked model's would."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.thinning import ThinningError, thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, 1e-3, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.body = nn.Conv2d(12, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        return self.head(F.relu(self.body(x)).mean((2, 3)))


def train(model: nn.Module, optimizer: Any, zeros: dict[str, torch.Tensor] | None, steps: int) -> list[float]:
    """Steps with norms in eval mode; what is masked stays 0."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model.eval()(IMAGES), LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            for name, parameter in model.named_parameters() if zeros else ():
                parameter.mul_(zeros[name])
    return losses


def prepared(kind: str) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = make_sensitive(Net(), IMAGES)
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(model, optimizer, None, 3)
    zero_channels(model, trace(model, IMAGES))
    return model, optimizer, {name: (parameter != 0).float() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_continues(kind: str) -> None:
    model, optimizer, zeros = prepared(kind)
    masked = copy.deepcopy(model)
    other = OPTIMIZERS[kind](masked.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    held = loss_still_referenced = F.cross_entropy(model(IMAGES), LABELS)
    loss_still_referenced.backward(retain_graph=True)
    masks = {name: mask.clone() for name, mask in zeros.items()}
    recipe = thin(model, IMAGES, masks, optimizer)
    assert recipe.parameters[1] == 9 * 28 + 2 * 9 + 12 * (9 * 9 + 1) + 4 * 13  # 9 of 12 and 12 of 16 channels
    assert all(masks[name].shape == p.shape and p.grad.shape == p.shape for name, p in model.named_parameters())
    theirs, mine = train(masked, other, zeros, 20), train(model, optimizer, masks, 20)
    assert mine == pytest.approx(theirs, rel=1e-5)
    assert mine[-1] != mine[0]
    assert held.requires_grad


def test_objects_stay_the_same() -> None:
    model, optimizer, _ = prepared("adam")
    before = [id(parameter) for parameter in model.parameters()]
    thin(model, IMAGES, None, optimizer)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert before == held == [id(parameter) for parameter in model.parameters()]


def test_optimizer_of_another_copy() -> None:
    model, _, _ = prepared("sgd")
    stranger = torch.optim.SGD(copy.deepcopy(model).parameters(), 0.1)
    shapes = [p.shape for p in model.parameters()]
    with pytest.raises(ThinningError, match="made for another copy of the model"):
        thin(model, IMAGES, None, stranger)
    assert shapes == [p.shape for p in model.parameters()]


def test_state_that_cannot_be_sliced() -> None:
    model, optimizer, _ = prepared("sgd")
    optimizer.state[model.stem.weight]["odd"] = torch.zeros(7)
    shapes = [p.shape for p in model.parameters()]
    with pytest.raises(ThinningError, match=r"SGD state 'odd' of 'stem.weight' has shape \[7\]"):
        thin(model, IMAGES, None, optimizer)
    assert shapes == [p.shape for p in model.parameters()]
    assert all(optimizer.state[p]["momentum_buffer"].shape == p.shape for p in model.parameters())


def test_average_of_weights() -> None:
    model, optimizer, _ = prepared("sgd")
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    recipe = thin(model, IMAGES, None, optimizer)
    recipe.apply(average.module)
    average.update_parameters(model)
    assert average(IMAGES).shape == (8, 4)


def test_grad_scaler() -> None:
    model, optimizer, _ = prepared("adamw")
    scaler = torch.amp.GradScaler("cpu")
    thin(model, IMAGES, None, optimizer)
    optimizer.zero_grad()
    scaler.scale(F.cross_entropy(model(IMAGES), LABELS)).backward()
    before = model.stem.weight.clone()
    scaler.step(optimizer)
    assert not torch.equal(before, model.stem.weight)
