"""What ranks do: train a tiny network by a schedule, each on data of its own, and tell what they ended with."""

from __future__ import annotations

import hashlib
import logging
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from potstill.compression import Pruner, dict_config, register
from potstill.compression.declare import Names, registry, resolve

EPOCHS, STEPS, IMAGES = 4, 3, 8


class Net(nn.Module):
    """Three convolutions, the third added to the second, and two Linears: 8x8 images, 4 classes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 4)
        self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in range(4))

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)) + x)
        return self.fc2(self.relu4(self.fc1(x.mean((2, 3)))))


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def batches(own, device):
    """Images and labels of a distribution of its own for each rank, or the same for all."""
    draw = torch.Generator().manual_seed(10 + own)
    images = torch.randn(STEPS, IMAGES, 3, 8, 8, generator=draw) * (1 + own) + own
    return images.to(device), torch.randint(0, 4, (STEPS, IMAGES), generator=draw).to(device)


def digest(tensor):
    return hashlib.sha256((tensor.detach().cpu().contiguous() + 0.0).numpy().tobytes()).hexdigest()[:12]


def told(model, scheduler):
    """Digests of masks and weights."""
    masks = {name: entry.mask for name, entry in scheduler.masks.items()}
    return {
        "masks": {name: digest(mask != 0) for name, mask in masks.items() if mask is not None},
        "weights": {name: digest(parameter) for name, parameter in model.named_parameters()},
    }


class Heard(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def train(schedule, save="", load="", how=None):
    """Train; `save` and `load` are files of all states, in the middle of an epoch.

    `how`: `hooks` (the loop calls them), `given` (`module` or `wrapper`), `parts` (backward passes of a step), `ddp`
    (arguments of the wrapper), `amp`, `scaler`, `device`, `alike` (ranks draw alike), `compile`, `thin`.
    """
    how = {"device": "cpu", "given": "module", "parts": 1, "ddp": {}, "thin": True, **(how or {})}
    device, heard = torch.device(how["device"]), Heard()
    logging.getLogger("potstill").addHandler(heard)
    torch.manual_seed(0)
    model, teacher = Net().to(device), Net().to(device)
    torch.manual_seed(7 if how.get("alike") else 100 + rank())
    run = Run(model, teacher, schedule, how)
    first = EPOCHS * STEPS // 2 + 1 if load else 0
    if load:
        run.load(load)
    story = [told(model, run.scheduler)] if load else []
    if not how.get("hooks"):
        run.attachment = run.scheduler.attach(run.optimizer, STEPS, first)
    for step in range(first, EPOCHS * STEPS):
        if save and step == EPOCHS * STEPS // 2 + 1:
            run.save(save)
            story.append(told(model, run.scheduler))
        run.step(step)
        if (step + 1) % STEPS == 0:
            story.append(told(model, run.scheduler))
    run.scheduler.finish()
    story.append(told(model, run.scheduler))
    removed = 0
    if how["thin"]:
        before = sum(parameter.numel() for parameter in model.parameters())
        run.scheduler.thin(run.optimizer)
        removed = before - sum(parameter.numel() for parameter in model.parameters())
        run.wrap()
        run.step(EPOCHS * STEPS)
        story.append(told(model, run.scheduler))
    logging.getLogger("potstill").removeHandler(heard)
    zeros = {name: float((parameter == 0).float().mean()) for name, parameter in model.named_parameters()}
    ended = {"zeros": zeros, "leaks": run.leaks, "filters": model.conv1.out_channels}
    return {"story": story, "removed": removed, "heard": heard.texts, **ended}


def careless():
    """Train with a pruner that draws by itself, from what each rank seeded for its own."""

    @register("pruners")
    class CarelessPruner(Pruner):
        def __init__(self, weights: Names) -> None:
            self.weights = weights

        def bind(self, model):
            self._names = resolve(self.weights, model)

        def masks(self, view):
            return {name: (torch.rand_like(view.weights[name]) > 0.5).float() for name in self._names}

    try:
        args = {"class": "CarelessPruner", "weights": ["conv1.weight"]}
        named = {"pruner": {"instance_name": "it"}, "epochs": [1]}
        return train({"version": 1, "pruners": {"it": args}, "policies": [named]})
    finally:
        del registry._classes["pruners"]["CarelessPruner"]


class Run:
    """A training on one rank."""

    def __init__(self, model, teacher, schedule, how):
        self.model, self.how, self.leaks, self.attachment = model, how, [], None
        self.images, self.labels = batches(rank(), how["device"])
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        self.scaler = torch.amp.GradScaler(how["device"], enabled=bool(how.get("scaler")), init_scale=8.0)
        self.wrap()
        self.scheduler = dict_config(
            model if how["given"] == "module" else self.wrapped,
            self.optimizer,
            schedule,
            example_inputs=self.images[0, :2],
            build_teacher=lambda *_: teacher,
        )
        self.scheduler.rewrap = self.wrap if how["given"] == "wrapper" else None

    def wrap(self):
        inner = torch.compile(self.model, backend="eager") if self.how.get("compile") else self.model
        self.wrapped = DistributedDataParallel(inner, **self.how["ddp"]) if dist.is_initialized() else inner

    def save(self, path):
        states = {part: getattr(self, part).state_dict() for part in ("model", "optimizer", "scheduler")}
        if rank() == 0:
            torch.save(states, path)

    def load(self, path):
        states = torch.load(Path(path), weights_only=True)
        for part in ("model", "optimizer", "scheduler"):
            getattr(self, part).load_state_dict(states[part])
        self.scheduler.masks.apply()

    def step(self, step):
        epoch, i = divmod(step, STEPS)
        at, scheduler, hooks = (epoch, i % STEPS, STEPS), self.scheduler, self.how.get("hooks")
        if hooks and i == 0:
            scheduler.on_epoch_begin(epoch, self.optimizer, STEPS)
        if hooks:
            scheduler.on_minibatch_begin(*at, self.optimizer)
        elif self.attachment is not None:
            self.attachment.metrics = {"min": float(rank() + 1), "max": 10.0 * rank()}
        self.optimizer.zero_grad()
        parts = self.how["parts"]
        for part, (x, y) in enumerate(zip(self.images[i].chunk(parts), self.labels[i].chunk(parts), strict=True)):
            self._backward(at, x, y, last=part + 1 == parts)
        if hooks:
            scheduler.before_parameter_optimization(*at, self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if hooks:
            scheduler.on_minibatch_end(*at, self.optimizer)
            if i + 1 == STEPS:
                scheduler.on_epoch_end(epoch, self.optimizer, {"min": float(rank())}, STEPS)
        self._look(step)

    def _backward(self, at, x, y, last):
        with nullcontext() if last or not dist.is_initialized() else self.wrapped.no_sync():
            with torch.autocast(self.how["device"], torch.bfloat16, enabled=bool(self.how.get("amp"))):
                loss = F.cross_entropy(self.wrapped(x), y) / self.how["parts"]
            if self.how.get("hooks") and last:
                loss = self.scheduler.before_backward_pass(*at, loss, self.optimizer)
            elif any(policy.weighs_loss for policy in self.scheduler.policies) and self.attachment is not None:
                loss = self.attachment.loss(loss)
            self.scaler.scale(loss).backward()

    def _look(self, step):
        for name, parameter in self.model.named_parameters():
            mask = self.scheduler.masks[name].mask
            if mask is not None and bool((parameter.detach()[mask == 0] != 0).any()):
                self.leaks.append(f"step {step}: {name}")
