"""What gates can really remove: found by asking thinning of stand-ins for the parameters, with gates shut."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from potstill.thinning import ZeroSlices, on_cpu, outlook

from .gated_channels import GatedChannels
from .scale_parameters import Layout, tensor_of


@dataclass(frozen=True)
class Reach:
    """Which channels thinning removes when their gates are shut.

    Attributes:
        removable: (gates,), bool.
        obstacles: weight -> why (some of) its channels stay although their gates are shut.
    """

    removable: Tensor
    obstacles: Mapping[str, str] = field(default_factory=dict)

    @on_cpu
    def counted(self, layout: Layout) -> Layout:
        """Return the layout for counting sizes: gates whose channels stay count as none."""
        gates = torch.cat([torch.where(self.removable, torch.arange(layout.count), layout.count), torch.tensor([-1])])
        gates[-1] = layout.count
        return replace(layout, gates=gates[layout.gates])

    def text(self) -> str:
        """Return what is in the way, by weight; nothing where nothing is."""
        return "; ".join(f"channels of {name} stay: {why}" for name, why in self.obstacles.items())


@on_cpu
def find_reach(model: nn.Module, inputs: Any, channels: GatedChannels, allow_inexact: bool) -> Reach:
    """Shut all gates but one of each layer, twice with other ones, and see what thinning would remove.

    Of stand-ins, since sharded parameters are nowhere whole, and what is 0 now may not be so after training.
    """
    removable = torch.zeros(len(channels), dtype=torch.bool)
    obstacles: dict[str, str] = {}
    # Of each layer one gate has to stay open; with the first left open and then the last, each is shut once.
    for last in (False, True):
        opened = torch.zeros(len(channels), dtype=torch.bool)
        for gates in channels.layers.values():
            opened[gates.max() if last else gates.min()] = True
        slices = outlook(model, inputs, _stand_ins(model, channels, opened)).slices
        gone, stay = _removed(slices, channels, allow_inexact)
        removable |= gone
        obstacles |= stay
    in_the_way = {name: why for name, why in obstacles.items() if not removable[channels.layers[name]].all()}
    return Reach(removable, in_the_way)


@torch.no_grad()
def shut(model: nn.Module, channels: GatedChannels, opened: Tensor) -> nn.Module:
    """Return a copy of the model in which the gates that are not opened are shut for good."""
    copied = copy.deepcopy(model)
    for factors in (channels.factors(opened.double()), channels.masks(opened)):
        for name, factor in factors.items():
            tensor = tensor_of(copied, name)
            tensor.mul_(factor.to(tensor))
    return copied


def _stand_ins(model: nn.Module, channels: GatedChannels, opened: Tensor) -> dict[str, Tensor]:
    """Return stand-ins for all parameters, 0 where shut gates make them so, in the memory of a few vectors."""
    shapes = {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    patterns = channels.factors(opened.float())
    for name, dim, indices in channels.makers(opened):
        pattern = torch.ones(shapes[name][dim]).index_fill_(0, indices, 0)
        pattern = pattern.view([-1 if axis == dim else 1 for axis in range(len(shapes[name]))])
        patterns[name] = patterns[name] * pattern if name in patterns else pattern
    draw = torch.Generator().manual_seed(0)
    stand_ins = {name: _stand_in(parameter.shape, draw) for name, parameter in model.named_parameters()}
    made = {name: pattern * _stand_in(pattern.shape, draw) for name, pattern in patterns.items()}
    gated = {name: factor.expand(shapes[name]) for name, factor in made.items()}
    return {**dict(model.named_buffers()), **stand_ins, **gated}


def _stand_in(shape: torch.Size, draw: torch.Generator) -> Tensor:
    """Return numbers that are 0 nowhere and constant along no dimension: neighbours share their memory."""
    # All strides are 1: the element at (i, j, ...) is numbers[i + j + ...], so a tensor takes the memory of a vector.
    numbers = torch.rand(sum(shape) + 1, generator=draw) + 0.5
    return numbers.as_strided(shape, [1] * len(shape))


def _removed(
    slices: Iterable[ZeroSlices], channels: GatedChannels, allow_inexact: bool
) -> tuple[Tensor, dict[str, str]]:
    """Return the gates whose channels thinning would remove, and why others of a weight stay."""
    gone = torch.zeros(len(channels), dtype=torch.bool)
    stay: dict[str, str] = {}
    for part in slices:
        if part.name not in channels.layers or part.dim != 0:
            continue
        if part.fate == "removed" or (allow_inexact and part.fate == "inexact"):
            gone[channels.layers[part.name][part.indices]] = True
        else:
            advice = "; allow_inexact: true counts and removes them" if part.fate == "inexact" else ""
            stay[part.name] = part.reason + advice
    return gone, stay
