"""Trace a model: run it once on the meta device while integers flow beside its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .build import Numbering, graph_of, numbering
from .copying import meta_copy, named_tensors, shared_copy
from .errors import ThinningError
from .graph import ChannelGraph
from .inputs import batch_of, run, tensors_of, to
from .node import node_of
from .notes import Notes
from .tracer import Tracer


@dataclass
class Traced:
    """A trace with its notes: what planning needs beside the public graph."""

    graph: ChannelGraph
    notes: Notes
    numbers: Numbering


def trace(model: nn.Module, example_inputs: Any) -> ChannelGraph:
    """Which slices of which parameters of `model` are the same channel.

    `example_inputs`: a tensor, a tuple of arguments or a dict of keyword arguments, as the model takes them; only
    shapes matter, unless the model's own code looks at values. The model stays as it is. Raises `ThinningError` if
    the model does not run on such inputs.
    """
    return traced(model, example_inputs).graph


def traced(model: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Traced:
    """Trace a model; with `weights` (its own tensors by name) constants are followed too."""
    tensors = named_tensors(model)
    try:
        notes = _notes(meta_copy(model), to(example_inputs, "meta"), weights)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        if isinstance(error, ThinningError):
            raise
        notes = _with_values(model, example_inputs, weights, error)
    numbers = numbering(notes)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Traced(graph_of(notes, numbers, shapes, aliases_of(model)), notes, numbers)


def _with_values(model: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor] | None, cause: Exception) -> Notes:
    """Trace with real numbers, for a model whose forward looks at them (branches on data)."""
    try:
        return _notes(shared_copy(model), example_inputs, weights)
    except Exception as error:
        raise ThinningError(
            f"the model does not run on the example inputs: {type(error).__name__}: {error}"
            f" (on the meta device: {type(cause).__name__}: {cause})"
        ) from error


def _notes(copy: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor] | None) -> Notes:
    notes = Notes()
    notes.batch = batch_of(example_inputs)
    flow(Tracer(notes, weights), copy.eval(), example_inputs)
    return notes


def aliases_of(model: nn.Module) -> dict[str, str]:
    """The further names of tied parameters and buffers -> the name that they are known by."""
    first: dict[int, str] = {}
    aliases = {}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in every:
        if first.setdefault(id(tensor), name) != name:
            aliases[name] = first[id(tensor)]
    return aliases


@contextmanager
def plain_attention() -> Iterator[None]:
    """Switch torch's fused inference path of transformer layers off, so that their parts are seen."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def watched(tracer: Tracer) -> Iterator[None]:
    """Let the tracer know which module runs, by global hooks that are taken off again."""

    def enter(module: nn.Module, _: Any) -> None:
        tracer.stack.append((tracer.names.get(id(module), "?"), module))

    def leave(*_: Any) -> None:
        tracer.stack.pop()

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def flow(tracer: Tracer, model: nn.Module, example_inputs: Any) -> None:
    """Run a copy of a model under the tracer; its outputs are frozen."""
    tracer.adopt(model)
    with plain_attention(), torch.no_grad(), torch.random.fork_rng(devices=[]), watched(tracer), tracer:
        out = run(model, example_inputs)
    for tensor in tensors_of(out):
        for plane in node_of(tensor).planes:
            tracer.notes.freeze(plane.ids, "an output of the model")
