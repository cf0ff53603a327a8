"""What is measured of a network to score its channels: gradients, curvature and activations over some minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from potstill.thinning import ChannelGraph, Layer

from .parts.channel_scores import ChannelScore, Outputs
from .parts.seeded import generator

Losses = Callable[[nn.Module], Iterable[Tensor]]
"""Runs the model on minibatches and gives the loss of each."""
PROBES = 4  # Rademacher vectors for each minibatch: the estimate's error falls with the root of their number


def layer_scores(
    model: nn.Module, graph: ChannelGraph, score: ChannelScore, losses: Losses | None
) -> dict[str, Tensor]:
    """Return the score of each output of each layer, by the layer's weight; layers without a score are left out.

    The model runs in eval mode and ends as it was.

    Raises:
        ValueError: the score looks at gradients, curvature or activations, and `losses` is missing, is no function, or
            gives none.
    """
    if not score.needs:
        return scored(score, dict(model.named_parameters()), graph, {})
    if not callable(losses):
        raise ValueError(
            f"score {score.name!r} looks at {score.needs}: give losses, a function that runs the model on minibatches"
            " and yields the loss of each: lambda model: (criterion(model(x), y) for x, y in loader)"
        )
    parameters = dict(model.named_parameters())
    weights = {name: parameters[name] for name in graph.out_dims if name in parameters}
    total: dict[str, Tensor] = {}
    count = 0
    with _evaluating(model):
        for measured in _MEASURES[score.needs](model, weights, graph, losses):
            count += 1
            found = measured if score.needs == "curvature" else scored(score, weights, graph, measured)
            for name, values in found.items():
                total[name] = total[name] + values if name in total else values
    if count == 0:
        raise ValueError("losses yields nothing: without a minibatch there is nothing to rank by")
    means = {name: values / count for name, values in total.items()}
    return scored(score, weights, graph, means) if score.needs == "curvature" else means


def scored(
    score: ChannelScore, parameters: Mapping[str, Tensor], graph: ChannelGraph, measured: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what the score gives each output of every weight that makes channels, where it can be told."""
    found = {}
    layers = {layer.weight: layer for layer in graph.layers}
    for name, dim in graph.out_dims.items():
        if name not in parameters or (score.needs and name not in measured):
            continue
        known = {score.needs: measured[name]} if score.needs else {}
        # Seeded by the name: a layer's random score does not depend on which layers are ranked with it.
        chance = generator(torch.initial_seed(), name)
        norm = _norm(layers[name], parameters, graph) if name in layers else None
        outputs = Outputs(rows_of(parameters[name].detach(), dim), norm=norm, generator=chance, **known)
        try:
            found[name] = score.of(outputs).detach().double().cpu()
        except ValueError:  # the layer has not what the score looks at: its channels stay, and are told
            continue
    return found


def rows_of(weight: Tensor, dim: int) -> Tensor:
    """Return a row for each output that a weight makes along a dimension, of it or of something of that shape."""
    return weight.movedim(dim, 0).flatten(1)


def _norm(layer: Layer, parameters: Mapping[str, Tensor], graph: ChannelGraph) -> Tensor | None:
    """Return the scale of the first normalisation behind a layer, in the order of the layer's outputs."""
    out = graph.use(layer.weight, layer.out_dim)
    for name, dim in layer.chain:
        use = graph.use(name, dim)
        if use is not None and out is not None and use.role == "scale" and name in parameters:
            scales = parameters[name].detach().flatten()
            # By way of the labels: behind a concatenation the norm has the layer's channels at other places.
            by_label = scales.new_zeros(graph.count + 1).index_put_((use.labels.to(scales.device),), scales)
            return by_label[out.labels.to(scales.device)]
    return None


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Run in eval mode: statistics of BatchNorm stay; afterwards each module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _gradients(
    model: nn.Module, weights: Mapping[str, Tensor], graph: ChannelGraph, losses: Losses
) -> Iterator[dict[str, Tensor]]:
    for loss in losses(model):
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        yield {
            name: rows_of(gradient, graph.out_dims[name])
            for name, gradient in zip(weights, found, strict=True)
            if gradient is not None
        }


def _curvature(
    model: nn.Module, weights: Mapping[str, Tensor], graph: ChannelGraph, losses: Losses
) -> Iterator[dict[str, Tensor]]:
    for step, loss in enumerate(losses(model)):
        for found in curvature(loss, weights, torch.initial_seed(), step):
            yield {name: rows_of(values, graph.out_dims[name]) for name, values in found.items()}


def curvature(loss: Tensor, weights: Mapping[str, Tensor], *seed: object) -> Iterator[dict[str, Tensor]]:
    """Yield `PROBES` estimates of the Hessian's diagonal by weight: z * (H z) for random signs z.

    Hutchinson 1990; Bekas, Kokiopoulou, Saad 2007. The graph of the loss stays, for its own backward pass.

    Raises:
        ValueError: the model has an operation whose second derivative torch does not know.
    """
    first = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    used = {name: g for name, g in zip(weights, first, strict=True) if g is not None and g.requires_grad}
    for probe in range(PROBES):
        signs = {name: _signs(g, *seed, probe, name) for name, g in used.items()}
        try:
            second = torch.autograd.grad(
                list(used.values()), [weights[name] for name in used], list(signs.values()),
                retain_graph=True, allow_unused=True,
            )  # fmt: skip
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            raise ValueError(
                f"score 'hessian' needs second derivatives, and torch lacks one of the model's: {error}; take 'taylor',"
                " which needs only the first"
            ) from error
        yield {
            name: signs[name] * (torch.zeros_like(signs[name]) if product is None else product)
            for name, product in zip(used, second, strict=True)
        }


def _signs(like: Tensor, *seed: object) -> Tensor:
    # Signs have the least variance of all vectors with E[z z^T] = I: z_i^2 is 1, so that the diagonal itself adds no
    # noise (Hutchinson 1990).
    draws = torch.randint(2, like.shape, generator=generator(torch.initial_seed(), *seed), device="cpu")
    return (2 * draws - 1).to(like.device, like.dtype)


def _activations(
    model: nn.Module, weights: Mapping[str, Tensor], graph: ChannelGraph, losses: Losses
) -> Iterator[dict[str, Tensor]]:
    """Yield the mean absolute outputs of the layers that are modules of torch's, by hooks."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name in weights:
        module = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):

            def hook(layer: nn.Module, _: object, out: Tensor, name: str = name) -> None:
                seen[name] = mean_outputs(layer, out)

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            for _ in losses(model):
                yield dict(seen)
                seen.clear()
    finally:
        for handle in handles:
            handle.remove()


def mean_outputs(layer: nn.Module, outputs: Tensor) -> Tensor:
    """Return the mean absolute value of each output of a Linear or a convolution."""
    dim = -layer.weight.ndim + 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1  # batched or not
    return outputs.detach().movedim(dim, 0).flatten(1).abs().mean(1)


_MEASURES = {"gradients": _gradients, "curvature": _curvature, "activations": _activations}
