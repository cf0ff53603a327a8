"""Gates drawn for each example of a batch: they multiply what modules put out, since a batch shares parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from potstill.thinning import unwrapped

from .gates import Gates
from .scale_parameters import GatedForward, Layout, tables, tensor_of

FIRST = (_ConvNd, _NormBase, nn.GroupNorm)
LAST = (nn.Linear, nn.LayerNorm)
"""Modules whose channels are the second axis of what they put out, and those whose channels are the last one."""


def gated_modules(root: nn.Module, layout: Layout) -> dict[nn.Module, tuple[int, Tensor]]:
    """Return the modules whose outputs have gates: the axis of the channels, and the gate of each channel.

    Raises:
        ValueError: a scaled parameter is of a module of which it is not known what to multiply.
    """
    found: dict[nn.Module, tuple[int, Tensor]] = {}
    keys = [*((name, 0) for name in layout.vectors), *layout.tensors]
    for (name, dim), index in zip(keys, layout.index.split(list(layout.sizes)), strict=True):
        target = tensor_of(root, name)
        for module in root.modules():
            if any(tensor is target for table in tables(module) for tensor in table.values()):
                if not isinstance(module, FIRST + LAST) or dim != 0:
                    kind = type(module).__name__
                    raise ValueError(f"sampling: example cannot gate {name} of a {kind}; use sampling: minibatch")
                found[module] = (1 if isinstance(module, FIRST) else -1), index
    return found


class GatedExamples(GatedForward):
    """Hooks that draw gates for each example in training; in evaluation parameters are scaled as ever."""

    source: Gates

    def install(self, root: nn.Module) -> list[Any]:
        """Put the hooks on the root module and on those whose outputs have gates; gives their handles."""
        self._rows: Tensor | None = None
        self._drawing = False
        handles = super().install(root)
        for module, (axis, index) in gated_modules(root, self.layout).items():
            handles.append(module.register_forward_hook(ExampleHook(self, axis, index)))
        return handles

    def __call__(self, root: nn.Module, args: Any) -> None:
        """Get ready to draw, or scale the parameters, before the forward pass."""
        if root.training and not self.source.suspended:
            self._drawing, self._rows = True, None
        else:
            super().__call__(root, args)

    def leave(self) -> None:
        """Draw no more, and put the parameters back, after the forward pass."""
        self._drawing, self._rows = False, None
        super().leave()

    def rows(self, like: Tensor) -> Tensor | None:
        """Return (examples, gates + 1) with a last column of ones: drawn once per forward pass; None where none act."""
        if self._drawing and self._rows is None:
            # Not before the first gated module runs: its output says how many examples there are.
            rows = self.source.draw_rows(len(like)).to(like)
            # Channels without a gate have the number after the last one, and 1 leaves them as they are.
            self._rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        return self._rows


class GatedOutputs(GatedExamples):
    """Hooks that multiply outputs in evaluation too: sharded parameters are whole only while a module runs."""

    def __call__(self, root: nn.Module, args: Any) -> None:
        """Draw once for all examples, before the forward pass."""
        gates = self.source.draw(unwrapped(root).training)
        self._drawing = gates is not None
        self._rows = None if gates is None else torch.cat([gates, gates.new_ones(1)])[None]

    def rows(self, like: Tensor) -> Tensor | None:
        """Return (1, gates + 1), drawn before the forward pass; None where the gates do not act."""
        return None if self._rows is None else self._rows.to(like)


class GatedExampleOutputs(GatedOutputs):
    """The same with a draw for each example in training."""

    def __call__(self, root: nn.Module, args: Any) -> None:
        """Get ready to draw, or draw the gates of evaluation, before the forward pass."""
        if unwrapped(root).training and not self.source.suspended:
            self._drawing, self._rows = True, None
        else:
            super().__call__(root, args)
            self._drawing = False

    def rows(self, like: Tensor) -> Tensor | None:
        """Return those of `GatedExamples` in training, else the one row of evaluation."""
        return GatedExamples.rows(self, like) if self._drawing else super().rows(like)


class ExampleHook:
    """Multiplies a module's output by the gates of each example. A copy of the module gets one that does nothing."""

    def __init__(self, gated: GatedExamples | None = None, axis: int = 1, index: Tensor | None = None) -> None:
        """Take what draws the gates, the axis of the channels, and the gate of each of them."""
        self.gated, self.axis, self.index = gated, axis, index

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """Return the scaled output, or None to leave it."""
        rows = None if self.gated is None else self.gated.rows(output)
        if rows is None or self.index is None:
            return None
        self.index = self.index.to(output.device)
        shape = [1] * output.dim()
        shape[0], shape[self.axis] = len(rows), len(self.index)
        return output * rows[:, self.index].view(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what the hook of a copy is made of."""
        return ExampleHook, ()
