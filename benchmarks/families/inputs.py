"""Inputs of the kinds that the forward passes of transformers name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from families.names import SIZES_BY_NAME, WIDTH
from families.tensors import (
    episodes_for,
    eyes_of,
    images_for,
    patches_for,
    questions,
    rare_for,
    regions_for,
    rows_for,
    series_for,
    sounds_for,
    states_for,
    tokens,
)

PLACES = {kind.title(): SIZES_BY_NAME[f"{kind}_token_id"] for kind in ("image", "video", "audio")}
"""Tokens in whose place features go."""


def inputs_of(model: nn.Module) -> dict[str, Any]:
    """Return inputs on which a model runs: of the kinds that its forward pass names, the most that go together."""
    main, first = model.main_input_name, None
    for inputs in distinct(model, kinds_of(model.config, main if isinstance(main, str) else main[0])):
        try:
            return run_with(model, inputs)
        except Exception as error:  # not the inputs that it wants
            first = first or error
    raise first or NotImplementedError(f"inputs for {inspect.signature(model.forward)}")


def distinct(model: nn.Module, kinds: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield of each kind what a forward pass names, with what it cannot do without; kinds of the same shapes once."""
    parameters = inspect.signature(model.forward).parameters.values()
    needed = {one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}
    known, seen, rare = {one.name for one in parameters}, set(), rare_for(model.config)
    for kind in kinds:
        inputs = {name: value for name, value in kind.items() if name in known}
        if inputs and not set(inputs) <= {"decoder_input_ids"}:
            inputs = {name: rare[name] for name in rare if name in needed} | inputs
            shapes = str([(name, value.shape) for name, value in sorted(inputs.items())])
            if needed <= set(inputs) and shapes not in seen:
                seen.add(shapes)
                yield inputs


@torch.no_grad()
def run_with(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run a model, if it says how many features want a place in its text, with that many places; return the inputs."""
    try:
        model(**inputs)
    except Exception as error:
        missing = re.search(r"(Image|Video|Audio) features.* tokens: 0, features:? (\d+)", str(error))
        if missing is None:
            raise
        inputs = with_places(inputs, PLACES[missing[1]], int(missing[2]) // len(inputs["input_ids"]))
        model(**inputs)
    return inputs


def with_places(inputs: dict[str, Any], token: int, places: int) -> dict[str, Any]:
    """Return inputs whose texts begin with places for features."""
    texts = torch.cat([torch.full((len(inputs["input_ids"]), places), token), inputs["input_ids"]], dim=1)
    return {**inputs, "input_ids": texts, "attention_mask": torch.ones_like(texts)}


def kinds_of(config: PreTrainedConfig, main: str) -> Iterator[dict[str, Any]]:
    """Yield inputs by name, those for the main kind first."""
    text = {"input_ids": tokens(12), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    width = getattr(config, "hidden_size", None) or WIDTH
    boxes = {"bbox": torch.zeros(2, 12, 4, dtype=torch.long), "query_embeds": torch.randn(2, 12, width)}
    images = {"pixel_values": images_for(config)}
    answers = {"decoder_input_ids": tokens(6)}
    beside = series_for(config) | episodes_for(config) | regions_for(config) | questions()
    sounds = [features | answers for features in sounds_for(config)]
    if main.startswith("input_"):
        yield from [] if main == "input_ids" else sounds
        yield from (text | boxes | images | answers | beside, text | boxes | answers | beside)
        yield from [features | text for features in sounds]
    yield images | answers | beside
    yield from patches_for(config)
    yield from (text | rows_for(config), text | images | answers | beside)
    yield from sounds
    yield from states_for(config, width)
    known = torch.randn(2, 12, getattr(config, "encoder_hidden_size", None) or width)
    yield text | boxes | {"encoder_hidden_states": known}
    eyes = eyes_of(config)
    frames = getattr(eyes, "num_frames", None) or getattr(eyes, "frames_per_clip", None) or 8
    for count in (frames, 2):
        video = images["pixel_values"].unsqueeze(1).repeat(1, count, 1, 1, 1)
        seen = {"image_attention_mask": torch.ones(2, 12, count, dtype=torch.long)}
        seen |= {"pixel_attention_mask": torch.ones(2, count, dtype=torch.long)}
        videos = text | {"pixel_values": video, "pixel_values_videos": video} | seen | questions()
        videos |= {"input_values": torch.randn(2, 1, 3840)}  # with its sound
        yield from (videos, {name: value[:1] for name, value in videos.items()})
    yield text | {"input_features": torch.randn(2, 128, 96)}  # a token for each eight of a sound
    yield {"pixel_values": images["pixel_values"].repeat(1, 1, 2, 2)}
    half = images["pixel_values"][:, :, : images["pixel_values"].shape[3]]  # two images, one below the other
    yield dict.fromkeys(("pixel_values", "prompt_pixel_values", "prompt_masks"), half)
