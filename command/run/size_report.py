"""The final report: dense -> masked -> thinned in parameters, MACs, bytes, latency and accuracy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
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
    """Return a network's accuracy and size: parameters, multiply-adds of one image, bytes as safetensors.

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
def latencies(models: Mapping[str, nn.Module], example: Tensor) -> dict[str, dict[str, dict[str, float]]]:
    """Return milliseconds per forward pass of each network at the batch sizes of `BATCHES`: median and quartiles.

    The networks run in turn, so that what else the machine does hits all alike.
    """
    result: dict[str, dict[str, dict[str, float]]] = {name: {} for name in models}
    for batch in BATCHES:
        inputs = {name: _images(example, batch, _layout(model, example)) for name, model in models.items()}
        times: dict[str, list[float]] = {name: [] for name in models}
        for name, model in models.items():
            model.eval()
            model(inputs[name])
        end = time.perf_counter() + SECONDS * len(models)
        while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
            for name, model in models.items():
                times[name].append(_seconds(model, inputs[name]))
        for name, seconds in times.items():
            low, middle, high = (1000 * sorted(seconds)[len(seconds) * part // 4] for part in (1, 2, 3))
            result[name][str(batch)] = {"median": middle, "low": low, "high": high}
    return result


def summary_table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table for people."""
    names = [name for name in ("dense", "masked", "thinned") if summary.get(name)]
    sizes = {"parameters": "parameters", "MACs": "macs", "bytes": "bytes"}
    if any(summary[n]["packed_bytes"] < WORTH * summary[n]["bytes"] for n in names):
        sizes["bytes, zeros packed"] = "packed_bytes"
    rows = [[what, *(_counted(summary, n, key) for n in names)] for what, key in sizes.items()]
    for batch in map(str, BATCHES):
        times = {name: summary[name]["latency_ms"][batch] for name in names}
        spreads = {name: summary[name]["latency_spread_ms"][batch] for name in names}
        rows.append([f"ms at batch {batch}", *(f"{times[n]:.2f} ({_spread(spreads[n])})" for n in names)])
        rows.append([f"images/s at batch {batch}", *(f"{1000 * int(batch) / times[n]:,.0f}" for n in names)])
        rows.append([f"speed-up at batch {batch}", *(f"{times['dense'] / times[n]:.2f}" for n in names)])
    rows.append(["top1 (%)", *("-" if summary[n]["top1"] is None else f"{summary[n]['top1']:.2f}" for n in names)])
    align = ("left", *["right"] * len(names))
    of_form = partial(tabulate, rows, ["", *names], disable_numparse=True, colalign=align)
    return Lines(of_form(tablefmt="psql"), in_markdown=of_form(tablefmt="github"))


def _spread(quartiles: Sequence[float]) -> str:
    return " to ".join(f"{value:.2f}" for value in quartiles)


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


def _images(example: Tensor, batch: int, layout: torch.memory_format) -> Tensor:
    return example[:1].expand(batch, *example.shape[1:]).contiguous(memory_format=layout)


def _layout(model: nn.Module, example: Tensor) -> torch.memory_format:
    """Return the memory layout of images that fits the network's weights, or else that of the example."""
    weights = [p for p in model.parameters() if p.dim() == 4 and min(p.shape[1:3]) > 1]
    if weights:
        channels_last = all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    else:
        channels_last = example.dim() == 4 and example.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last and example.shape[1] > 1 else torch.contiguous_format
