"""What scores of channels see of a training: gradients, outputs or curvature, from one ranking to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph

from ..channel_statistics import PROBES, curvature, mean_outputs, rows_of, scored
from ..parts.channel_scores import ChannelScore
from ..parts.compiled_models import refuse_compiled
from ..parts.structures import Group
from ..processes.ranks import Ranks
from ..processes.shards import is_sharded
from ..steps import Step
from .follow_activations import channel_dim, only
from .statistics import Statistics, after_backward

SAMPLES = 8
"""So many minibatches between two rankings give curvature: each costs 1 + PROBES backward passes more."""


class ScoreWatch:
    """Gathers what a score needs beside weights.

    Attributes:
        statistics: the sums of it.
    """

    def __init__(self, measure: ChannelScore, groups: Mapping[str, Group]) -> None:
        """Know the score, and how the weights split into channels."""
        self.statistics = Statistics()
        self._measure, self._groups = measure, groups
        self._handles: list[Any] = []

    def attach(self, model: nn.Module) -> None:
        """Begin to watch a model, and no other.

        Raises:
            ValueError: its layers cannot be watched.
        """
        self._model = model
        watch = {"gradients": self._see_gradient, "activations": self._see_outputs}.get(self._measure.needs)
        if self._measure.needs == "activations":
            refuse_compiled(f"score {self._measure.name!r}", model)
        self._handles = [watch(name, group) for name, group in self._groups.items()] if watch else []

    def copied(self, model: nn.Module) -> None:
        """Watch the model of a copy, if this one was still watched."""
        if self._handles:
            self.attach(model)

    def release(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def waits(self) -> bool:
        """Return whether a weight has yet to be seen."""
        return bool(self._measure.needs) and any(self.statistics.mean(name) is None for name in self._groups)

    def see_loss(self, loss: Tensor, step: Step) -> None:
        """Estimate curvature by the loss of a minibatch, if it is needed and not enough is known.

        Raises:
            ValueError: the loss has no graph to differentiate, or one that cannot be differentiated twice.
        """
        names = list(self._groups)
        if self._measure.needs != "curvature" or self.statistics.fresh(names[0]) >= SAMPLES * PROBES:
            return
        weights = {name: self._model.get_parameter(name) for name in names}
        if not loss.requires_grad or any(map(is_sharded, weights.values())):
            raise ValueError(
                f"score {self._measure.name!r} differentiates the loss twice, and needs the loss and whole weights:"
                " hand it over before the backward pass (loss = attachment.loss(loss), or scheduler."
                "before_backward_pass), and do not shard them"
            )
        try:
            for found in curvature(loss.mean(), weights, "curvature", *step.at):
                for name, values in found.items():
                    self.statistics.add(name, values)
        except RuntimeError as error:
            told = str(error).splitlines()[0]
            raise ValueError(f"score {self._measure.name!r}: this loss has no second derivatives: {told}") from error

    def scores(self, weights: Mapping[str, Tensor], graph: ChannelGraph, ranks: Ranks) -> dict[str, Tensor]:
        """Return the score of each output of each weight, over all ranks; new sums begin."""
        needs = self._measure.needs
        if not needs:
            return scored(self._measure, weights, graph, {})
        whole = needs == "curvature"
        like = {name: weights[name] if whole else g.split(weights[name])[:, 0] for name, g in self._groups.items()}
        with self.statistics.pooled(ranks, like):
            means = {name: self.statistics.mean(name) for name in self._groups}
        self.statistics.restart()
        # Depthwise filters pass channels on: what makes them is scored.
        found = {name: values for name, values in means.items() if values is not None and name in graph.out_dims}
        if needs == "gradients":  # each minibatch was scored by itself
            return {name: values.double().cpu() for name, values in found.items()}
        rows = {name: rows_of(values, graph.out_dims[name]) if whole else values for name, values in found.items()}
        return scored(self._measure, weights, graph, rows)

    def _see_gradient(self, name: str, group: Group) -> Any:
        def see(weight: Tensor) -> None:
            if weight.grad is not None:  # as `taylor` defines it, for this minibatch
                self.statistics.add(name, group.split(weight * weight.grad).sum(1).square())

        return after_backward(name, self._model.get_parameter(name), see)

    def _see_outputs(self, name: str, group: Group) -> Any:
        channel_dim(name, self._model)  # or it is an error
        layer = self._model.get_submodule(name.rpartition(".")[0])
        return layer.register_forward_hook(only(layer, self._outputs_of(name)))

    def _outputs_of(self, name: str) -> Callable[..., None]:
        @torch.no_grad()
        def see(layer: nn.Module, inputs: Any, outputs: Tensor) -> None:
            if layer.training:
                self.statistics.add(name, mean_outputs(layer, outputs))

        return see
