"""The final report: dense -> masked -> thinned in parameters, MACs, bytes, latency and accuracy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save
from tabulate import tabulate
from torch import Tensor, nn

from potstill.thinning import count_macs
from potstill.thinning.files.text import Lines
from potstill.thinning.packed import pack_zeros
from potstill.thinning.store import WORTH

BATCHES = (1, 64)
SECONDS = 0.6
"""How long the latency of each network is measured at each batch size."""


def facts(model: nn.Module, example: Tensor, top1: float | None) -> dict[str, Any]:
    """Size and accuracy of a network: parameters, multiply-adds of one image, bytes of its weights as safetensors.

    `packed_bytes` is what the file needs in which zeros cost a bit each (`thinned.packed.safetensors`).
    """
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": count_macs(model, example),
        "bytes": len(save(weights)),
        "packed_bytes": len(save(pack_zeros(weights))),
        "top1": top1,
    }


@torch.no_grad()
def latencies(models: Mapping[str, nn.Module], example: Tensor) -> dict[str, dict[str, float]]:
    """Return milliseconds per forward pass of each network at the batch sizes of `BATCHES`.

    The networks run in turn, so that what else the machine does hits all alike; the median counts.
    """
    result: dict[str, dict[str, float]] = {name: {} for name in models}
    for batch in BATCHES:
        images = example[:1].expand(batch, *example.shape[1:]).contiguous(memory_format=_format(example))
        times: dict[str, list[float]] = {name: [] for name in models}
        for model in models.values():
            model.eval()
            model(images)
        end = time.perf_counter() + SECONDS * len(models)
        while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
            for name, model in models.items():
                times[name].append(_seconds(model, images))
        for name, seconds in times.items():
            result[name][str(batch)] = 1000 * sorted(seconds)[len(seconds) // 2]
    return result


def summary_table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table for people."""
    names = [name for name in ("dense", "masked", "thinned") if summary.get(name)]
    sizes = {"parameters": "parameters", "MACs": "macs", "bytes": "bytes"}
    if any(summary[n]["packed_bytes"] < WORTH * summary[n]["bytes"] for n in names):
        sizes["bytes, zeros packed"] = "packed_bytes"
    rows = [[what, *(_counted(summary, n, key) for n in names)] for what, key in sizes.items()]
    rows += [
        *([f"ms at batch {b}", *(f"{summary[n]['latency_ms'][str(b)]:.2f}" for n in names)] for b in BATCHES),
        ["top1 (%)", *("-" if summary[n]["top1"] is None else f"{summary[n]['top1']:.2f}" for n in names)],
    ]
    align = ("left", *["right"] * len(names))
    return Lines(tabulate(rows, ["", *names], tablefmt="psql", disable_numparse=True, colalign=align))


def _counted(summary: Mapping[str, Any], name: str, what: str) -> str:
    """Return a size, and the percentage of the dense network's where it is another."""
    size, dense = summary[name][what], summary["dense"][what]
    return f"{size:,}" if size == dense else f"{size:,} ({100 * size / max(dense, 1):.1f} %)"


def _seconds(model: nn.Module, images: Tensor) -> float:
    _wait(images)
    start = time.perf_counter()
    model(images)
    _wait(images)
    return time.perf_counter() - start


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def _format(example: Tensor) -> torch.memory_format:
    channels_last = example.dim() == 4 and example.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last and example.shape[1] > 1 else torch.contiguous_format
