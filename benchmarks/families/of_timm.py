"""A small member of each family of timm, with few blocks and on a small image where it takes them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import nn

from potstill.thinning.running.inputs import tensors_of
from potstill.thinning.testing import make_sensitive

WORDS = (
    " test atto femto pico nano xxs xxtiny xx xs xtiny x tiny ti t mini small s little lite 0"
    " medium m base b large l xlarge xl huge h giant so400m "
)
"""Words of names, the smallest promise first; what is none of them counts as medium."""
LARGE = 3_000_000
"""Parameters from which on a member gets fewer blocks, where its class takes their number."""
FEWER = ({"depth": 2}, {"depths": (1, 1, 1, 1)}, {"layers": (1, 1, 1, 1)})
SIDES = (64, 96, 128)
MOST = 1e6
"""Outputs that are larger come of statistics that fit no image."""


def names() -> list[str]:
    """Return the families that have members."""
    return [name for name in sorted(timm.list_modules()) if timm.list_models(module=name)]


def model_of(family: str) -> tuple[str, nn.Module, Any]:
    """Return the name of a family's small member, the model, and two images."""
    likely = sorted(timm.list_models(module=family), key=promise)[:3]
    name = min(likely, key=lambda name: size(name, {}) or float("inf"))
    wanted: dict[str, Any] = {}
    if (size(name, {}) or 0) > LARGE:
        wanted = min(FEWER, key=lambda options: size(name, options) or float("inf"))
        wanted = wanted if size(name, wanted) else {}
    said = "".join(f", {key} {value}" for key, value in wanted.items())
    for options, images in attempts(name, wanted):
        try:
            model = timm.create_model(name, num_classes=10, **options).eval()
            # Statistics of two images of one pixel are those of two numbers: what comes after grows without end.
            bounded = all(float(tensor.abs().max()) < MOST for tensor in outputs_of(copy.deepcopy(model), images))
        except Exception:  # another size then
            continue
        if bounded:
            return name + said, model, images
    raise NotImplementedError(f"{name} runs on none of the image sizes tried")


@torch.no_grad()
def outputs_of(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return what a model makes of images with the statistics that it will be measured with."""
    return tensors_of(make_sensitive(model, images)(images))


def promise(name: str) -> tuple[int, int, int]:
    """Return how large a member is by its name: words, then numbers."""
    first, *words = [word for word in re.split(r"[_\d]+", name) if word]
    ranks = [WORDS.find(f" {word} ") for word in (words if first != "test" else [first])]
    return (
        min((rank for rank in ranks if rank >= 0), default=WORDS.index("medium")),
        sum(map(int, re.findall(r"\d+", name))),
        len(name),
    )


def size(name: str, options: dict[str, Any]) -> int:
    """Return the number of parameters of a member, 0 where its class does not take such options."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=10, **options)
    except Exception:  # each class refuses in its own way
        return 0
    return sum(parameter.numel() for parameter in model.parameters())


def attempts(name: str, options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    """Yield options and images, the smallest first."""
    settings = timm.get_pretrained_cfg(name)
    channels, *own = settings.input_size if settings else (3, 224, 224)
    for side in SIDES:
        if side < own[0]:
            images = torch.randn(2, channels, side, side)
            if settings and settings.fixed_input_size:
                yield {**options, "img_size": side}, images
            yield options, images
    yield options, torch.randn(2, channels, *own)
