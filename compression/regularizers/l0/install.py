"""Chooses where gates act: on parameters, or on what modules put out."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from ...processes.shards import is_sharded
from .gates import Gates
from .scale_activations import GatedExampleOutputs, GatedExamples, GatedOutputs
from .scale_parameters import GatedForward, Layout, tensor_of


def install(model: nn.Module, layout: Layout, gates: Gates, sampling: Literal["minibatch", "example"]) -> list[Any]:
    """Put gates on a model; return the handles of their hooks.

    One draw for a minibatch scales parameters, one for each example outputs; where parameters are sharded, which are
    whole only while their module runs, outputs are scaled in evaluation too.
    """
    kind = GatedForward if sampling == "minibatch" else GatedExamples
    if any(is_sharded(tensor_of(model, name)) for name in layout.names):
        kind = GatedOutputs if sampling == "minibatch" else GatedExampleOutputs
    return kind(layout, gates).install(model)
