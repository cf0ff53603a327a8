"""Networks for inference alone: BatchNorm folded into the convolutions before it, in the faster memory layout."""

from __future__ import annotations

from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_weights

from potstill.compression.latency.measure import alternately

from .programs import exported

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default: False,
    aten.conv2d.default: False,
    aten.conv3d.default: False,
    aten.linear.default: False,
    aten.conv_transpose1d.default: True,
    aten.conv_transpose2d.input: True,
    aten.conv_transpose3d.input: True,
}
"""What a BatchNorm can be folded into, and whether its weight has the outputs second."""
SECONDS = 0.3
"""How long each layout is measured."""


class ChannelsLast(nn.Module):
    """A network that brings its images into channels-last layout first."""

    def __init__(self, network: nn.Module) -> None:
        """Take the network, whose weights change their layout."""
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network returns."""
        found: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return found


def folded(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Return a network for inference as a program: norms folded, in the layout that is faster here.

    Args:
        model: in eval mode, on the CPU; its weights may change their layout.
        example: input images of shape (N, C, H, W), N >= 2.

    Raises:
        UsageError: the network cannot be exported.
    """
    plain = fold(exported(model, example))
    candidates = [plain, ChannelsLast(fold(exported(model, example)))]
    with torch.no_grad():
        times = alternately([partial(one, example[:1]) for one in candidates], lambda: None, SECONDS)
    return exported(candidates[times.index(min(times))], example)


def fold(program: ExportedProgram) -> nn.Module:
    """Return a program as a module without the norms that convolutions and linear layers can take over.

    A norm in eval mode is y = x a + b in each channel; the layer before it takes a into its weights and b into its bias
    (Jacob et al. 2018, section 3.2). One whose input is read elsewhere too stays.
    """
    module = program.module()
    for node in list(module.graph.nodes):
        layer = node.args[0] if node.target is aten.batch_norm.default else None
        if isinstance(layer, fx.Node) and layer.target in CONVOLUTIONS and len(layer.users) == 1:
            _take_over(module, layer, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    stored = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    for name in [name for name, _ in stored if name not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)
    return module


def _take_over(module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> None:
    """Let a layer do what the norm behind it does."""
    transposed = CONVOLUTIONS[layer.target]  # type: ignore[index]  # a target of the table
    names = ("x", "scale", "shift", "mean", "variance", "training", "momentum", "eps", "cudnn")
    given = dict(zip(names, norm.args, strict=True))
    weight, bias = _value(module, layer.args[1]), _value(module, layer.args[2] if len(layer.args) > 2 else None)
    mean, variance = (_value(module, given[name]) for name in ("mean", "variance"))
    grouped = transposed and len(layer.args) > 6 and layer.args[6] != 1  # outputs are counted within each group
    # Of a sequence a norm's channels are the words, and a linear layer's outputs come last.
    elsewhere = layer.target is aten.linear.default and layer.meta["val"].dim() != 2
    if given["training"] or weight is None or mean is None or variance is None or grouped or elsewhere:
        return
    scale, shift = (_value(module, given[name]) for name in ("scale", "shift"))
    eps = float(given["eps"])  # type: ignore[arg-type]  # a constant of the graph
    fused = fuse_conv_bn_weights(weight, bias, mean, variance, eps, scale, shift, transposed)
    with module.graph.inserting_before(layer):
        for place, (kind, value) in enumerate(zip(("weight", "bias"), fused, strict=True), 1):
            name = f"folded_{layer.name}_{kind}"
            module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
            layer.args = (*layer.args[:place], module.graph.get_attr(name), *layer.args[place + 1 :])
    norm.replace_all_uses_with(layer)
    module.graph.erase_node(norm)


def _value(module: nn.Module, node: object) -> Tensor | None:
    """Return the stored tensor that a node stands for; None for another node."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Tensor = attrgetter(str(node.target))(module)
    return found
