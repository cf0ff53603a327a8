"""What `summary.json` says of a run beside its sizes: what it was, who acted when, and each layer's width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from potstill.compression.steps import when
from potstill.thinning import Recipe

from .session import Session


def story(run: Session, recipe: Recipe) -> dict[str, Any]:
    """Return network, data, length and policies of a run, and what thinning had to leave, as plain data."""
    return {
        "arch": run.options.data.arch,
        "dataset": run.data.name,
        "num_classes": len(run.data.classes),
        "input_shape": list(run.data.input_shape),
        "seed": run.options.training.seed,
        "epochs": run.epoch,
        "policies": [_policy(policy, run.minibatches) for policy in run.scheduler.policies],
        "refused": [asdict(kept) for kept in recipe.refused],
        "notes": list(recipe.notes),
    }


def _policy(policy: Any, minibatches: int) -> dict[str, Any]:
    window = policy.window
    return {
        "name": policy.name,
        "acts": policy.acts,
        "compresses": policy.compresses,
        "when": when(window),
        "first": window.epoch_of(window.start, minibatches),
        "last": window.epoch_of(window.last, minibatches),
    }


def layers(model: nn.Module, dense: nn.Module) -> list[dict[str, Any]]:
    """Return for each convolution and Linear its output channels, parameters and zeros, dense and now."""
    return list(_layers(dict(model.named_parameters()), dict(dense.named_parameters())))


def _layers(now: Mapping[str, Tensor], dense: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
    for name, weight in now.items():
        if weight.dim() > 1:
            yield {
                "layer": name.removesuffix(".weight"),
                "before": len(dense[name]),
                "after": len(weight),
                "parameters_before": dense[name].numel(),
                "parameters_after": weight.numel(),
                "zeros": weight.numel() - int(weight.count_nonzero()),
            }
