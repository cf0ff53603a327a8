"""`--summary png`: a network as a graph of its modules and of the functions between them, drawn by Graphviz."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from potstill.thinning.files.atomic import write_atomically

from ..errors import UsageError

LOOKS = frozenset({"size", "dim", "shape", "__get__", "numel", "is_floating_point", "stride", "device", "dtype"})
"""Functions that look at a tensor and make none."""


@dataclass
class Node:
    """A module or a function that ran."""

    label: str
    is_module: bool = True


@dataclass
class NetworkGraph:
    """What ran, in its order, and the tensors that went from one to the other: (from, to, shape of one image's)."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)


class _Listener(TorchFunctionMode):
    """Notes modules without children as they run, and functions outside of them; Python's own control flow may do
    anything.
    """

    def __init__(self, model: nn.Module, parameters: bool) -> None:
        super().__init__()
        self.graph = NetworkGraph([Node("input", is_module=False)])
        self.inside = 0
        self._origin: dict[int, int] = {}
        self._alive: list[Tensor] = []  # an address is an identity only as long as its tensor lives
        self._handles: list[Any] = []
        for name, module in model.named_modules():
            if not any(module.children()):
                self._handles.append(module.register_forward_pre_hook(self._enter))
                self._handles.append(module.register_forward_hook(self._leave(_label(name, module, parameters))))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.inside += 1  # what it is made of is no function of its own
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            self.inside -= 1
        name = getattr(func, "__name__", str(func))
        if self.inside == 0 and name not in LOOKS:
            self.note(Node(name.strip("_"), is_module=False), (args, kwargs), result)
        return result

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self.inside += 1

    def _leave(self, label: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self.inside -= 1
            if self.inside == 0:
                self.note(Node(label), inputs, output)

        return hook

    def begin(self, tensors: Any) -> None:
        """Let what the network is called with come from the node `input`."""
        self._keep(tensors, 0)

    def note(self, node: Node, inputs: Any, outputs: Any) -> None:
        """Enter a node, unless nothing of the network's input goes into it."""
        sources = {
            (self._origin[id(t)], tuple(t.shape[1:]))
            for t in tree_leaves(inputs) if isinstance(t, Tensor) and id(t) in self._origin
        }  # fmt: skip
        if sources and any(isinstance(t, Tensor) for t in tree_leaves(outputs)):
            number = len(self.graph.nodes)
            self.graph.nodes.append(node)
            self.graph.edges += [(source, number, shape) for source, shape in sorted(sources)]
            self._keep(outputs, number)

    def _keep(self, tensors: Any, number: int) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                self._alive.append(tensor)
                self._origin[id(tensor)] = number

    def end(self, outputs: Any) -> NetworkGraph:
        """Stop listening; the outputs go to a node of their own."""
        for handle in self._handles:
            handle.remove()
        self.note(Node("output", is_module=False), outputs, outputs)
        return self.graph


def network_graph(model: nn.Module, example: Tensor, parameters: bool = False) -> NetworkGraph:
    """Return what runs in a network, in eval mode, for an example; with `parameters` the labels tell their shapes."""
    listener = _Listener(model, parameters)
    mode = model.training
    try:
        listener.begin(example)
        with torch.no_grad(), listener:
            outputs = model.eval()(example)
    finally:
        model.train(mode)
    return listener.end(outputs)


def dot_text(graph: NetworkGraph) -> str:
    """Return the graph in Graphviz's language."""
    lines = ["digraph network {", '  node [fontname="Helvetica", fontsize=10, style=filled, fillcolor=white];']
    for number, node in enumerate(graph.nodes):
        look = "shape=box, fillcolor=lightblue" if node.is_module else "shape=ellipse"
        lines.append(f"  n{number} [label={_quoted(node.label)}, {look}];")
    for source, target, shape in graph.edges:
        lines.append(f"  n{source} -> n{target} [label={_quoted('x'.join(map(str, shape)))}, fontsize=8];")
    return "\n".join([*lines, "}", ""])


def draw_network(model: nn.Module, example: Tensor, path: Path, parameters: bool = False) -> Path:
    """Write `<path>.dot` and, with Graphviz, the picture `<path>.png`; return the picture's path.

    Raises:
        UsageError: there is no Graphviz, or it fails; the .dot file is there.
    """
    source, picture = path.with_suffix(".dot"), path.with_suffix(".png")
    write_atomically(source, dot_text(network_graph(model, example, parameters)).encode())
    program = shutil.which("dot")
    if program is None:
        raise UsageError(f"{source} is written, but for a picture of it Graphviz (the program dot) has to be installed")
    done = subprocess.run([program, "-Tpng", str(source)], capture_output=True, check=False)
    if done.returncode:
        raise UsageError(f"{source}: Graphviz cannot draw it: {done.stderr.decode(errors='replace').strip()[:200]}")
    write_atomically(picture, done.stdout)
    return picture


def _label(name: str, module: nn.Module, parameters: bool) -> str:
    lines = [name or "the network", type(module).__name__]
    if parameters:
        lines += [f"{key} {'x'.join(map(str, value.shape))}" for key, value in module.named_parameters()]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
