"""Milliseconds of a forward pass, measured so that what else the machine does counts as little as possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from potstill.thinning.running.inputs import batch_of, run

ROUNDS = 5
"""At least so many forward passes."""


def resized(inputs: Any, batch: int) -> Any:
    """Return example inputs of another batch size: copies of the first example."""
    own = batch_of(inputs)

    def tile(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or len(tensor) != own:
            return tensor
        channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last and tensor.shape[1] > 1 else torch.contiguous_format
        return tensor[:1].expand(batch, *tensor.shape[1:]).contiguous(memory_format=layout)

    return tree_map_only(Tensor, tile, inputs)


@torch.no_grad()
def milliseconds(models: Sequence[nn.Module], inputs: Any, seconds: float = 0.5) -> list[float]:
    """Return how long a forward pass of each model takes, in eval mode; their modes stay as they are.

    They run in turn. Of the first the shortest time counts, as other work on the machine can only add to it; the others
    take as many times that as they did in the median of the rounds: what slows the machine slows a whole round.

    Args:
        models: the networks.
        inputs: what they are called with.
        seconds: about how long each is measured.
    """
    modes = [{module: module.training for module in model.modules()} for model in models]
    try:
        return alternately([_call(model.eval(), inputs) for model in models], _wait(inputs), seconds)
    finally:
        for mode in modes:
            for module, training in mode.items():
                module.training = training


def alternately(calls: Sequence[Callable[[], Any]], wait: Callable[[], None], seconds: float) -> list[float]:
    """Return the milliseconds of each call, which take turns: the first's shortest, the others' relative to it."""
    for call in calls:
        call()
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds * len(calls)
    while len(rounds) < ROUNDS or time.perf_counter() < end:
        rounds.append([_seconds(call, wait) for call in calls])
    first = 1000 * min(times[0] for times in rounds)
    return [first, *(first * median(times[index] / times[0] for times in rounds) for index in range(1, len(calls)))]


def _seconds(call: Callable[[], Any], wait: Callable[[], None]) -> float:
    """Return how long a call takes."""
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def _call(model: nn.Module, inputs: Any) -> Callable[[], Any]:
    return lambda: run(model, inputs)


def _wait(inputs: Any) -> Callable[[], None]:
    """Return what waits for the device: kernels of a GPU run behind the program that starts them."""
    devices: list[torch.device] = []
    tree_map_only(Tensor, lambda tensor: devices.append(tensor.device), inputs)
    cuda = next((device for device in devices if device.type == "cuda"), None)
    return (lambda: None) if cuda is None else (lambda: torch.cuda.synchronize(cuda))
