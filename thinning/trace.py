"""Trace a model: run it once on the meta device while integers flow beside its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from .errors import ThinningError
from .graph import ChannelGraph
from .names import unwrapped
from .new_biases import layers_without_bias
from .rehearsal.rehearse import Rehearsal, find_fixed_sizes
from .rehearsal.repairs import Repairs
from .running.collection import rare_collection
from .running.copies import aliases_of, kept_by, meta_copy, named_tensors, own_copy, training
from .running.default_device import on_cpu
from .running.index_lists import IndexLists
from .running.inputs import batch_of, beside, run, tensors_of, to
from .running.run import plain_run
from .tracing.entries import SplitAxis
from .tracing.labels import attach, info_of, may_count_channels
from .tracing.log import TraceLog
from .tracing.numbering import Numbering, graph_of, numbering
from .tracing.replay import Removal
from .tracing.rescalable_norms import settle_means, settle_weight_norms
from .tracing.tracer import Tracer
from .tracing.training_mode import at_least_two, leaves_out, trains_otherwise, untraced
from .tracing.watcher import watched

OUTPUT = "an output of the model"
INPUT = "an input of the model"
LEFT = "left by the forward pass in an attribute or an argument, for others to read"
COSTLY = 10**10
"""Multiply-adds with real numbers beside which it costs nothing to follow channels."""


@dataclass(frozen=True)
class Analysis:
    """A trace with its log: what planning needs beside the public graph.

    `without_bias`: the weights of layers that could have a bias, and its name; with `add_bias` they get one.
    """

    graph: ChannelGraph
    log: TraceLog
    numbers: Numbering
    rehearsal: Rehearsal
    repairs: Repairs
    without_bias: Mapping[str, str] = field(default_factory=dict)
    add_bias: bool = False

    def repaired(self, dead: Tensor) -> Analysis | None:
        """Rehearse a removal; return the analysis with what lets the next one get further, None if nothing fails."""
        failure = self.rehearsal.failure(self.log, Removal(self.log.ids, self.numbers, dead))
        if failure is None or self.repairs.excuse(failure.deviation):
            return None
        log, repairs = self.repairs.repaired(failure)
        return replace(self.with_log(log), repairs=repairs)

    def with_splits(self, changed: Mapping[int, SplitAxis]) -> Analysis:
        """Return the analysis with some split axes replaced, by the id of each."""
        return self.with_log(self.log.copy(splits=[changed.get(id(split), split) for split in self.log.splits]))

    def with_sizes(self) -> Analysis:
        """Return the analysis with the sizes in the model's code found again."""
        log, _, repairs = find_fixed_sizes(self.log, self.rehearsal, self.repairs)
        return replace(self.with_log(log), repairs=repairs)

    def with_log(self, log: TraceLog) -> Analysis:
        """Return the analysis with another log, numbered anew."""
        numbers = numbering(log)
        return replace(
            self, log=log, numbers=numbers, graph=graph_of(log, numbers, self.graph.shapes, self.graph.aliases)
        )


def trace(model: nn.Module, example_inputs: Any) -> ChannelGraph:
    """Return which slices of which parameters of `model` are the same channel.

    `example_inputs`: a tensor, a tuple of arguments or a dict of keyword arguments, as the model takes them; only
    shapes matter, unless the model's own code looks at values. The model stays as it is. Raises `ThinningError` if
    the model does not run on such inputs.
    """
    return analyse(unwrapped(model), example_inputs).graph


@on_cpu
@rare_collection()
def analyse(model: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Analysis:
    """Trace a model; with `weights` (its own tensors by name) constants are followed too."""
    example_inputs = beside(model, example_inputs)
    try:
        log, rehearsal = _first_run(model, meta_copy, to(example_inputs, "meta"), weights)
    except Exception as cause:  # whatever a model's code raises
        try:
            # The model's code looks at values (a branch on data, say): run it with real numbers.
            log, rehearsal = _first_run(model, own_copy, example_inputs, weights)
        except Exception as error:
            raise ThinningError(
                f"the model does not run on the example inputs: {type(error).__name__}: {error}"
                f" (on the meta device: {type(cause).__name__}: {cause})"
            ) from error
    settle_means(log, model)
    settle_weight_norms(log)
    log, numbers, repairs = find_fixed_sizes(log, rehearsal, Repairs(model))
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    graph = graph_of(log, numbers, shapes, aliases_of(model))
    return Analysis(graph, log, numbers, rehearsal, repairs, layers_without_bias(model))


def _first_run(
    model: nn.Module, copier: Callable[[nn.Module], nn.Module], inputs: Any, weights: Mapping[str, Tensor] | None
) -> tuple[TraceLog, Rehearsal]:
    """Run a copy in eval mode, and in training mode where that does something else."""
    log = TraceLog()
    log.batch = batch_of(inputs)
    tracer = Tracer(log, weights)
    copy = copier(model)
    # A buffer that the forward pass writes to (a moving state) starts as zeros and is no constant all the same.
    written = flow(tracer, copy.eval(), inputs)
    log.macs = round(tracer.macs / log.batch)
    if weights is not None and not written.isdisjoint(weights):  # they are no constants
        return _first_run(model, copier, inputs, {name: weights[name] for name in weights if name not in written})
    two = at_least_two(inputs)
    other = leaves_out(model, tracer.touched) or trains_otherwise(model, copier, two)
    both = other and _training_run(tracer, lambda: training(copy, model), two)
    for name, tensor in named_tensors(model).items():
        if name not in tracer.touched and may_count_channels(tensor):
            for dim, size in enumerate(tensor.shape):
                if size:
                    log.freeze(log.ids_of(name, dim, size), "not used in a forward pass")

    def again(second: Tracer, changed: nn.Module) -> None:
        flow(second, changed.eval(), inputs)
        if both:
            flow(second, training(changed, model), two)

    def run_within(context: AbstractContextManager[Any], changed: nn.Module) -> None:
        modes = [(changed.eval, inputs), (lambda: training(changed, model), two)]
        for mode, batch in modes if both else modes[:1]:
            with plain_run(mode()), IndexLists(getattr(context, "reads", None)), context:
                run(changed, batch)

    computes = copier is own_copy
    costly = computes and tracer.macs > COSTLY
    return log, Rehearsal(lambda: copier(model), again, run_within, shapes_first=not costly, computes=computes)


def _training_run(tracer: Tracer, copy: Callable[[], nn.Module], two: Any) -> bool:
    """Trace in training mode too; modules that run in training only take part, the others are known already."""
    log = tracer.log
    layers, reads, operations, macs = len(log.layers), len(log.reads), len(log.operations), log.other_macs
    steps = len(log.sequence)
    known = {layer.weight for layer in log.layers}
    try:
        flow(tracer, copy(), two)
    except Exception as error:  # a model's code may refuse to train on such inputs; then there is nothing to learn
        log.warnings.append(untraced(error))
        del log.operations[operations:], log.reads[reads:], log.layers[layers:], log.sequence[steps:]
        return False
    log.other_macs = macs
    for layer in log.layers[layers:]:
        # Costs are those of inference; what training adds (auxiliary heads) counts as no multiply-adds.
        layer.positions = 0.0
        layer.again = layer.weight in known
    kept = [r for r in log.reads[reads:] if r.layer is not None and not log.layers[r.layer].again]
    log.reads[reads:] = kept
    return True


def flow(tracer: Tracer, model: nn.Module, example_inputs: Any) -> set[str]:
    """Run a copy of a model under the tracer; its outputs are frozen. Return the buffers that it writes to."""
    tracer.adopt(model)
    buffers = {name: (buffer, buffer._version) for name, buffer in model.named_buffers()}
    given = {id(tensor) for tensor in tensors_of(example_inputs)}
    for tensor in tensors_of(example_inputs):
        attach(tensor, replace(info_of(tensor), cause=INPUT))
    with plain_run(model), watched(tracer), IndexLists(tracer.reads), tracer:
        out = run(model, example_inputs)
    # What others may read after the call is an output too, whether it was returned or not.
    left = [*kept_by(model), *(tensor for tensor in tensors_of(example_inputs) if id(tensor) not in given)]
    kept = {OUTPUT: tensors_of(out), LEFT: [tensor for tensor in left if not info_of(tensor).read]}
    for why, tensors in kept.items():
        for plane in (plane for tensor in tensors for plane in info_of(tensor).planes):
            tracer.log.freeze(plane.ids, why)
    written = set()
    for name, buffer in model.named_buffers() if not model.training else ():  # in training, norms write statistics
        before, version = buffers.get(name, (buffer, buffer._version))
        if before is not buffer or version != buffer._version:
            written.add(name)
            for dim, size in enumerate(buffer.shape if may_count_channels(buffer) else ()):
                tracer.log.freeze(tracer.log.ids_of(name, dim, size), "a state that the forward pass changes")
    return written
