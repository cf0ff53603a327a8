"""Trace a model: run it once on the meta device while integers flow beside its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .build import Numbering, graph_of, numbering
from .call import Frame
from .copying import meta_copy, named_tensors, shared_copy
from .errors import ThinningError
from .glance import Glance
from .graph import ChannelGraph
from .inputs import batch_of, run, tensors_of, to
from .node import node_of
from .notes import Notes
from .rehearse import Repairs, Stage, settle_sizes
from .replay import DeviationError
from .tracer import Tracer


@dataclass
class Traced:
    """A trace with its notes: what planning needs beside the public graph."""

    graph: ChannelGraph
    notes: Notes
    numbers: Numbering
    stage: Stage

    def rehearse(self, dead: Tensor) -> DeviationError | None:
        """Try a removal on a copy; where that leaves the first run's track, None if nowhere."""
        return self.stage.rehearse(self.notes, self.numbers, dead)

    def repaired(self, deviation: DeviationError, dead: Tensor) -> Traced:
        """The trace with something changed so that the next try gets further."""
        self.stage.repairs.repair(deviation, self.numbers, dead)
        return self.renumbered()

    def renumbered(self) -> Traced:
        """The trace after a change of its notes."""
        numbers = numbering(self.notes)
        graph = graph_of(self.notes, numbers, self.graph.shapes, self.graph.aliases)
        return Traced(graph, self.notes, numbers, self.stage)


def trace(model: nn.Module, example_inputs: Any) -> ChannelGraph:
    """Which slices of which parameters of `model` are the same channel.

    `example_inputs`: a tensor, a tuple of arguments or a dict of keyword arguments, as the model takes them; only
    shapes matter, unless the model's own code looks at values. The model stays as it is. Raises `ThinningError` if
    the model does not run on such inputs.
    """
    return traced(model, example_inputs).graph


def traced(model: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Traced:
    """Trace a model; with `weights` (its own tensors by name) constants are followed too."""
    try:
        notes, stage = _first_run(model, meta_copy, to(example_inputs, "meta"), weights)
    except Exception as cause:  # whatever a model's code raises
        try:
            # The model's code looks at values (a branch on data, say): run it with real numbers.
            notes, stage = _first_run(model, shared_copy, example_inputs, weights)
        except Exception as error:
            raise ThinningError(
                f"the model does not run on the example inputs: {type(error).__name__}: {error}"
                f" (on the meta device: {type(cause).__name__}: {cause})"
            ) from error
    numbers = settle_sizes(notes, stage)
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    return Traced(graph_of(notes, numbers, shapes, aliases_of(model)), notes, numbers, stage)


def _first_run(
    model: nn.Module, copier: Callable[[nn.Module], nn.Module], inputs: Any, weights: Mapping[str, Tensor] | None
) -> tuple[Notes, Stage]:
    """Run a copy in eval mode, and in training mode where the model's code asks for the mode."""
    notes = Notes()
    notes.batch = batch_of(inputs)
    tracer = Tracer(notes, weights)
    copy = copier(model)
    flow(tracer, copy.eval(), inputs)
    both = _asks_for_mode(model) and _training_run(tracer, copy, inputs)
    for name, tensor in named_tensors(model).items():
        if name not in tracer.touched and tensor.is_floating_point():
            for dim, size in enumerate(tensor.shape):
                notes.freeze(notes.ids_of(name, dim, size), "not used in a forward pass")

    two = _at_least_two(inputs)

    def again(second: Tracer, changed: nn.Module) -> None:
        flow(second, changed.eval(), inputs)
        if both:
            flow(second, changed.train(), two)

    def look(glance: Glance, changed: nn.Module) -> None:
        with plain_attention(), torch.no_grad(), torch.random.fork_rng(devices=[]), glance:
            run(changed.eval(), inputs)
            if both:
                run(changed.train(), two)

    return notes, Stage(lambda: copier(model), again, look, Repairs(notes, model))


def _asks_for_mode(model: nn.Module) -> bool:
    """Whether code other than torch's own looks at `self.training`: then some modules may run in training only."""
    kinds = {type(module) for module in model.modules()}
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return any("training" in getattr(getattr(k, f, None), "__code__", _NO_CODE).co_names for k in own for f in vars(k))


_NO_CODE = (lambda: None).__code__


def _at_least_two(inputs: Any) -> Any:
    """Inputs with at least two samples: BatchNorm trains on no less."""
    if batch_of(inputs) > 1:
        return inputs
    return tree_map_only(Tensor, lambda t: torch.cat((t, t)) if t.ndim and len(t) == 1 else t, inputs)


def _training_run(tracer: Tracer, copy: nn.Module, inputs: Any) -> bool:
    """Trace in training mode too; modules that run in training only take part, the others are known already."""
    notes = tracer.notes
    layers, reads, records, macs = len(notes.layers), len(notes.reads), len(notes.records), notes.other_macs
    steps = len(notes.sequence)
    known = {layer.weight for layer in notes.layers}
    try:
        flow(tracer, copy.train(), _at_least_two(inputs))
    except Exception as error:  # a model's code may refuse to train on such inputs; then there is nothing to learn
        notes.warnings.append(f"training mode was not traced: {type(error).__name__}: {str(error)[:120]}")
        del notes.records[records:], notes.reads[reads:], notes.layers[layers:], notes.sequence[steps:]
        return False
    notes.other_macs = macs
    for layer in notes.layers[layers:]:
        layer.positions = 0.0
        layer.again = layer.weight in known
    kept = [r for r in notes.reads[reads:] if r.layer is not None and not notes.layers[r.layer].again]
    notes.reads[reads:] = kept
    return True


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
        tracer.stack.append(Frame(tracer.names.get(id(module), ""), module))

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
