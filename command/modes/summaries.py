"""`--summary KIND`: what a network consists of, printed without data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from potstill.compression import format_table, sparsity_text
from potstill.thinning import channels_text, trace

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def compute_table(model: nn.Module, example: Tensor) -> pd.DataFrame:
    """Return one row for each call of a convolution or Linear: shapes, weights and multiply-adds of one image."""
    rows: list[dict[str, object]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str) -> None:
        weight = module.get_parameter("weight")
        rows.append(
            {
                "Name": name,
                "Type": type(module).__name__,
                "Attrs": f"k={tuple(weight.shape[2:])}" if weight.dim() > 2 else "",
                "IFM": str(tuple(inputs[0].shape[1:])),
                "OFM": str(tuple(output.shape[1:])),
                "Weights": weight.numel(),
                "MACs": weight.numel() * _positions(module, inputs[0], output),
            }
        )

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LAYERS)]
    handles = [module.register_forward_hook(partial(record, name=name)) for name, module in layers]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(example[:1])
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    table = pd.DataFrame(rows)
    total = {"Name": "Total", "Weights": table["Weights"].sum(), "MACs": table["MACs"].sum()}
    return pd.DataFrame([*rows, total]).fillna("")


def _positions(module: nn.Module, image: Tensor, output: Tensor) -> int:
    """Return how often each weight is multiplied: once per output position, or per input position where transposed."""
    if isinstance(module, nn.Linear):
        return output[..., 0].numel()
    spatial = image if "Transpose" in type(module).__name__ else output
    return spatial[0, 0].numel()


def _sparsity(model: nn.Module, example: Tensor, form: str) -> str:
    return sparsity_text(model, form, all_parameters=True)


def _compute(model: nn.Module, example: Tensor, form: str) -> str:
    return format_table(compute_table(model, example), form)


def _model(model: nn.Module, example: Tensor, form: str) -> str:
    return str(model)


def _modules(model: nn.Module, example: Tensor, form: str) -> str:
    leaves = [(name, type(m).__name__) for name, m in model.named_modules() if not any(m.children())]
    return format_table(pd.DataFrame(leaves, columns=["Name", "Type"]), form)


def _params(model: nn.Module, example: Tensor, form: str) -> str:
    """Return names and shapes as YAML to paste into a schedule, and which weights make the same channels."""
    width = max(len(name) for name, _ in model.named_parameters())
    lines = [f"  - {name:<{width}}  # {list(p.shape)}" for name, p in model.named_parameters()]
    return "\n".join(["weights:", *lines, *_coupled(model, example)])


def _coupled(model: nn.Module, example: Tensor) -> list[str]:
    ranks = {name: parameter.dim() for name, parameter in model.named_parameters()}
    lines = []
    for group in trace(model, example).classes():
        makers = dict.fromkeys(name for name, _, role in group.uses if role == "out" and ranks.get(name, 0) > 1)
        if group.status == "removable" and len(makers) > 1:
            lines.append(f"  - [{', '.join(makers)}]  # {group.size} channels")
    return ["coupled:  # weights whose filters are the same channels: prune them together", *lines] if lines else []


def _channels(model: nn.Module, example: Tensor, form: str) -> str:
    return channels_text(trace(model, example))


SUMMARY_PRINTERS: dict[str, Callable[[nn.Module, Tensor, str], str]] = {
    "sparsity": _sparsity,
    "compute": _compute,
    "model": _model,
    "modules": _modules,
    "params": _params,
    "channels": _channels,
}
