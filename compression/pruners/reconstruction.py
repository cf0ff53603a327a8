"""Removes input channels and refits the weights that stay, so that the layer's outputs change as little as they can."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..declare.arguments import Count, Fraction, Names
from ..declare.cross_checks import Complaint, apart, refused_weights
from ..declare.registry import register
from ..files.checked import Field
from ..parts.compiled_models import hooks_left_out, refuse_compiled
from ..parts.scores import MAGNITUDES, Magnitude
from ..parts.seeded import generator
from ..parts.selection import Rounding
from ..parts.sparsity_rates import Rate, constant
from ..parts.structures import Group
from ..processes.shards import refuse_sharded
from .base import View
from .follow_activations import only
from .ranking import RankedStructurePruner

logger = logging.getLogger(__name__)
Samples = tuple[Tensor, Tensor]


@register("pruners")
@dataclass(eq=False)
class FMReconstructionChannelPruner(RankedStructurePruner):
    """Ranks input channels by magnitude; what stays becomes the least-squares fit of the outputs (He et al. 2017).

    The fit is to output points sampled, with the inputs under them, in training forward passes before the window's
    first time: start the policy at epoch 1 or later. Convolutions without groups and Linear layers.

    Attributes:
        desired_sparsity: the fraction of channels to remove.
        weights: the weights, or patterns of them.
        group_type: `Channels`.
        group_size: so many consecutive channels live or die together.
        rounding_fn: how level x channels becomes a whole number.
        magnitude_fn: `l1` or `l2`: what channels are ranked by.
        ranking_noise: the probability, for each weight, that its scores are multiplied by normal noise.
    """

    desired_sparsity: Fraction
    weights: Names
    group_type: Literal["Channels"] = "Channels"
    group_size: Count = 1
    rounding_fn: Rounding = "floor"
    magnitude_fn: Magnitude = "l1"
    ranking_noise: Fraction = 0.0

    local = ("samples",)
    samples = 2000
    points_per_pass = 200

    @property
    def rate(self) -> Rate:
        """The constant sparsity."""
        return constant(self.desired_sparsity)

    def score(self, name: str, group: Group, view: View) -> Tensor:
        """Return the magnitude of each input channel, now and then with noise."""
        values = MAGNITUDES[self.magnitude_fn](group.split(view.weights[name]))
        source = generator(view.owner, name, view.step.epoch, view.step.minibatch)
        if self.ranking_noise and torch.rand((), generator=source, device="cpu") < self.ranking_noise:
            return values * torch.randn(len(values), generator=source, device="cpu").to(values)
        return values

    @classmethod
    def problems(cls, args: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> Iterable[Complaint]:
        """Yield what arguments get wrong together, and weights of layers whose outputs cannot be refitted."""
        return apart(
            super().problems(args, shapes),
            refused_weights(args, shapes, _refitted),
            hooks_left_out(cls.__name__, shapes),
        )

    def bind(self, model: nn.Module) -> None:
        """Resolve the names of `weights` and begin to sample.

        Raises:
            ValueError: a weight is of a layer whose outputs cannot be refitted, or the model is compiled.
        """
        refuse_compiled(type(self).__name__, model)
        super().bind(model)
        refuse_sharded(type(self).__name__, self._groups, model)
        if not hasattr(self, "_handles"):
            self._data: dict[str, list[Samples]] = {name: [] for name in self._groups}
            self._released = False
            self._handles = {name: self._attach(name, model) for name in self._groups}

    def _attach(self, name: str, model: nn.Module) -> Any:
        layer = _refitted(name, model)

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if model.training and len(output) and not self._full(name):  # a rank's part of a batch may be empty
                with torch.no_grad():
                    self._take(name, module, inputs[0], output)

        return layer.register_forward_hook(only(layer, hook))

    def _full(self, name: str) -> bool:
        return sum(len(inputs) for inputs, _ in self._data[name]) >= self.samples

    def _take(self, name: str, layer: nn.Module, inputs: Tensor, output: Tensor) -> None:
        # Seeded by the weight and by how many samples there are: a resumed run draws what an uninterrupted one does.
        source = generator(name, len(self._data[name]))
        if isinstance(layer, nn.Linear):
            x, y = inputs.flatten(0, -2), output.flatten(0, -2)
            rows = torch.randint(len(x), (self.points_per_pass,), generator=source, device="cpu").to(x.device)
            x, y = x[rows], y[rows]
        else:
            images = torch.randint(len(inputs), (min(20, len(inputs)),), generator=source, device="cpu")
            patches = _patches(inputs[images.to(inputs.device)], layer)  # type: ignore[arg-type]
            y = output[images.to(inputs.device)].flatten(2).transpose(1, 2).flatten(0, 1)
            rows = torch.randint(len(y), (self.points_per_pass,), generator=source, device="cpu").to(y.device)
            # About ten points of each of 20 images: neighbouring points of one image are nearly alike and tell little.
            x, y = patches[rows], y[rows]
        bias = getattr(layer, "bias", None)
        if x.isfinite().all() and y.isfinite().all():
            self._data[name].append((x.clone(), (y if bias is None else y - bias).clone()))

    def values(self, view: View, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the refitted weights."""
        fitted = {}
        self._data = _of_all(self._data, view, self.samples)
        for name, mask in masks.items():
            if not self._data[name]:
                logger.warning("%s: no samples yet, so its weights are not refitted: start the policy later", name)
            elif not mask.all():
                fitted[name] = self._fit(name, mask, view.weights[name])
        self._data = {name: [] for name in self._data}
        return fitted

    def _fit(self, name: str, mask: Tensor, weight: Tensor) -> Tensor:
        x, y = _joined(self._data[name])
        # The same columns for all outputs: a mask of whole input channels.
        kept = mask.flatten(1)[0].nonzero().flatten()
        least = torch.finfo(x.dtype).eps * max(x.shape)  # singular values below it are rounding errors of the samples
        # Fewer samples than columns, or inputs that depend on each other (zeros behind a ReLU): the solution of least
        # norm, by singular values (gelsd), where a QR factorisation would fail.
        solution = torch.linalg.lstsq(x[:, kept].double().cpu(), y.double().cpu(), rcond=least, driver="gelsd").solution
        fitted = torch.zeros_like(weight.flatten(1))
        fitted[:, kept] = solution.T.to(fitted)
        return fitted.view(weight.shape)

    def waits(self) -> bool:
        """Return whether a weight has no samples yet."""
        return not self._released and not all(self._data.values())

    def release(self) -> None:
        """Sample no longer."""
        self._released = True
        for handle in self._handles.values():
            handle.remove()
        self._data = {name: [] for name in self._data}

    def copied(self, model: nn.Module) -> None:
        """Sample from the model of a copy."""
        if not self._released:
            self._handles = {name: self._attach(name, model) for name in self._groups}

    def after_thinning(self) -> None:
        """Drop the samples of the old shapes, which are worth nothing."""
        self._data = {name: [] for name in self._data}

    def state_dict(self) -> dict[str, Any]:
        """Return the samples, and whether more are wanted."""
        samples = {name: [list(pair) for pair in pairs] for name, pairs in self._data.items()}
        return {"samples": samples, "released": self._released}

    def join(self, states: Sequence[Field]) -> None:
        """Take the samples of several ranks."""
        self._data = {name: [] for name in self._data}
        for state in states:
            for name, pairs in self._data.items():
                stored = [pair.items() for pair in state["samples"][name].items()]
                pairs += [(x.tensor(), y.tensor()) for x, y in stored]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        fields = Field(state)
        samples = {name: fields["samples"][name].items() for name in self._data}
        pairs = {name: [pair.items() for pair in stored] for name, stored in samples.items()}
        self._data = {name: [(x.tensor(), y.tensor()) for x, y in stored] for name, stored in pairs.items()}
        if fields["released"].flag():
            self.release()


def _of_all(data: dict[str, list[Samples]], view: View, most: int) -> dict[str, list[Samples]]:
    """Return the samples of all ranks.

    Of each as many as make `most` of all, so that it costs the same with any number.
    """
    if view.ranks.size == 1:
        return data
    # Rounded up.
    share = -(-most // view.ranks.size)
    every = view.ranks.all({name: [part[:share].cpu() for part in _joined(pairs)] for name, pairs in data.items()})
    found: dict[str, list[Samples]] = {name: [] for name in data}
    for one in every:
        for name, parts in one.items():
            if parts:
                x, y = (part.to(view.weights[name].device) for part in parts)
                found[name].append((x, y))
    return found


def _joined(pairs: list[Samples]) -> list[Tensor]:
    """Return all inputs and all outputs; nothing where there are none."""
    return [torch.cat(parts) for parts in zip(*pairs, strict=True)]


def _refitted(name: str, model: nn.Module) -> nn.Module:
    """Return the layer of a weight.

    Raises:
        ValueError: its outputs cannot be refitted.
    """
    layer = model.get_submodule(name.rpartition(".")[0])
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    if not plain and not isinstance(layer, nn.Linear):
        raise ValueError(f"{name}: only Linear layers and Conv2d without groups, zero-padded, can be refitted")
    return layer


def _patches(inputs: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return what lies under each output point, a row each, in the order of the weight's elements."""
    padding = layer.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        low = [r // 2 if padding == "same" else 0 for r in reach]
        high = [r - l if padding == "same" else 0 for r, l in zip(reach, low, strict=True)]  # noqa: E741
        inputs, padding = F.pad(inputs, [low[1], high[1], low[0], high[0]]), (0, 0)
    unfolded = F.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
    return unfolded.transpose(1, 2).flatten(0, 1)
