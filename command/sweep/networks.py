"""The networks of finished runs, loaded to be compared side by side: at one time, on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from potstill.compression import CheckpointError, load_checkpoint
from potstill.compression.latency.fastest import LAYOUTS
from potstill.thinning.files.regular import must_be_regular

from ..cli.options import Options
from ..cli.output_options import StartOptions
from ..compare.stored import Network, StoredRun
from ..run.evaluation import evaluate
from ..run.model_and_data import build_model, described, example_inputs, find_device, load_data, place
from ..run.size_report import latencies


def thinned_network(options: Options, run: StoredRun) -> tuple[nn.Module, Options, Mapping[str, Any]]:
    """Return a run's network as thinning left it, the options to begin with it, and its checkpoint.

    Raises:
        CheckpointError: its checkpoint is damaged.
    """
    path = must_be_regular(run.path / "thinned.pt")
    checkpoint = load_checkpoint(path)
    start = replace(options, start=StartOptions(resume_from=path))
    info = described(start, checkpoint)
    model = build_model(start, info, info.num_classes, checkpoint)
    placed = place(model, find_device(options.training.device))
    layout = LAYOUTS.get(run.text("layout"))
    return (placed if layout is None else placed.to(memory_format=layout)).eval(), start, checkpoint


def side_by_side(options: Options, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the runs with latencies measured in turn; those of their summaries are of other moments.

    Raises:
        CheckpointError: a checkpoint is damaged, or its network is of other images than those of the others.
    """
    loaded = {run.name: thinned_network(options, run) for run in runs}
    shape, *others = {tuple(checkpoint["input_shape"]) for _, _, checkpoint in loaded.values()}
    if others:
        raise CheckpointError(f"{runs[0].path.parent}: the networks of its runs are of images of different shapes")
    example = example_inputs(shape).to(find_device(options.training.device), memory_format=torch.channels_last)
    found = latencies({name: model for name, (model, *_) in loaded.items()}, example)
    dense = next(iter(found.values()))
    return [replace(run, thinned=_with(run.thinned, found[run.name]), dense=_with(run.dense, dense)) for run in runs]


def _with(network: Network, times: Mapping[str, Mapping[str, float]]) -> Network:
    return replace(network, latency={batch: time["median"] for batch, time in times.items()})


def test_accuracies(options: Options, runs: Sequence[StoredRun]) -> list[float]:
    """Return the accuracy of each network on the test images, in percent."""
    return [_test_accuracy(*thinned_network(options, run)) for run in runs]


def _test_accuracy(model: nn.Module, options: Options, checkpoint: Mapping[str, Any]) -> float:
    device, info = find_device(options.training.device), described(options, checkpoint)
    test = load_data(options, checkpoint, info).test
    return evaluate(model, test, options.training.batch_size, device).accuracy()
