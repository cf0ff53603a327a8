"""What ranks do that share each batch evenly: they must come to what one process comes to with the whole of it."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from potstill.compression import dict_config

EPOCHS, STEPS, IMAGES = 4, 3, 12


class Net(nn.Module):
    """No BatchNorm: it would normalise by a part of the batch."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 4)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.fc2(self.relu3(self.fc1(x.mean((2, 3)))))


class Sent:
    """Counts the library's messages and their bytes, by what was going on."""

    def __init__(self):
        self.during, self.counts = "", Counter()

    @contextmanager
    def counting(self):
        places, names = (dist, dist.distributed_c10d), ("all_reduce", "broadcast", "all_gather")
        kept = [(place, name, getattr(place, name)) for place in places for name in names]
        for place, name, function in kept:
            setattr(place, name, self._counted(function))
        try:
            yield
        finally:
            for place, name, function in kept:
                setattr(place, name, function)

    def _counted(self, function):
        def counted(tensor, *args, **kwargs):
            sent = args[0] if isinstance(tensor, list) else tensor
            self.counts[f"{self.during}: {sent.numel() * sent.element_size()}"] += 1
            return function(tensor, *args, **kwargs)

        return counted


def train(schedule):
    """Masks and weights at the end; how many messages of how many bytes were sent in epochs' begins and in steps."""
    ranks, own = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(STEPS, IMAGES, 3, 8, 8, generator=draw)
    labels = torch.randint(0, 4, (STEPS, IMAGES), generator=draw)
    torch.manual_seed(0)
    model = Net()
    network = DistributedDataParallel(model) if ranks > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    scheduler = dict_config(model, optimizer, schedule, example_inputs=images[0, :2])
    sent = Sent()
    with sent.counting():
        for epoch in range(EPOCHS):
            sent.during = "epoch" if epoch else "begin"
            scheduler.on_epoch_begin(epoch, optimizer, STEPS)
            sent.during = "step"
            for i, (x, y) in enumerate(zip(images, labels, strict=True)):
                at = epoch, i, STEPS
                scheduler.on_minibatch_begin(*at, optimizer)
                loss = F.cross_entropy(network(x.chunk(ranks)[own]), y.chunk(ranks)[own])
                loss = scheduler.before_backward_pass(*at, loss, optimizer)
                optimizer.zero_grad()
                loss.backward()
                scheduler.before_parameter_optimization(*at, optimizer)
                optimizer.step()
                scheduler.on_minibatch_end(*at, optimizer)
        sent.during = "end"
        scheduler.finish()
    masks = {name: entry.mask for name, entry in scheduler.masks.items() if entry.mask is not None}
    return {
        "masks": {name: (mask != 0).flatten().tolist() for name, mask in masks.items()},
        "weights": {name: parameter.flatten().tolist() for name, parameter in model.named_parameters()},
        "sent": {what: count for what, count in sent.counts.items() if not what.startswith(("begin", "end"))},
    }
