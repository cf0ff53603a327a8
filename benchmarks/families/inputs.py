"""Inputs of the kinds that the forward passes of transformers name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from families.sizes import SIZES_BY_NAME, WIDTH

PLACES = {kind.title(): SIZES_BY_NAME[f"{kind}_token_id"] for kind in ("image", "video", "audio")}
"""Tokens in whose place features go."""


def inputs_of(model: nn.Module) -> dict[str, Any]:
    """Return inputs on which a model runs: of the kinds that its forward pass names, the most that go together."""
    known, first = set(inspect.signature(model.forward).parameters), None
    main = model.main_input_name
    for kinds in kinds_of(model.config, main if isinstance(main, str) else main[0]):
        inputs = {name: value for name, value in kinds.items() if name in known}
        if not inputs or set(inputs) <= {"decoder_input_ids"}:
            continue
        try:
            return run_with(model, inputs)
        except Exception as error:  # not the inputs that it wants
            first = first or error
    raise first or NotImplementedError(f"inputs of the kind {main}")


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
    yield from (
        images | answers | beside,
        patches_for(config),
        squares_for(config),
        rows_for(config),
        text | rows_for(config),
    )
    yield text | images | answers | beside
    yield from sounds
    codes = getattr(config, "num_codebooks", None) or 1
    yield {"input_ids": tokens(12).repeat(codes, 1)}
    yield {"input_ids": tokens(12).unsqueeze(-1).repeat(1, 1, codes + 1)}
    yield {"input_values": torch.randn(2, 12, width), "decoder_input_values": torch.randn(2, 6, width)}
    yield {"inputs": torch.randn(2, 12, getattr(config, "d_model", None) or width)}
    yield {"inputs_embeds": torch.randn(2, 12, width)}
    known = torch.randn(2, 12, getattr(config, "encoder_hidden_size", None) or width)
    yield text | boxes | {"encoder_hidden_states": known}
    eyes = getattr(config, "vision_config", None) or config
    frames = getattr(eyes, "num_frames", None) or getattr(eyes, "frames_per_clip", None) or 8
    for count in (frames, 2):
        video = images["pixel_values"].unsqueeze(1).repeat(1, count, 1, 1, 1)
        seen = {"image_attention_mask": torch.ones(2, 12, count, dtype=torch.long)}
        yield text | {"pixel_values": video, "pixel_values_videos": video} | seen | questions()


def questions() -> dict[str, torch.Tensor]:
    """Return what is asked about an image by a model that has a text beside."""
    places = torch.arange(12).repeat(2, 1) < SIZES_BY_NAME["latent_query_num"]
    return {
        "qformer_input_ids": tokens(6),
        "qformer_attention_mask": torch.ones(2, 6, dtype=torch.long),
        "image_embeds_position_mask": places.long(),
    }


def series_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return two series of numbers up to now and from now on, with what is known of each time."""
    length, ahead = getattr(config, "context_length", None) or 64, getattr(config, "prediction_length", None) or 8
    length += max(getattr(config, "lags_sequence", None) or [0])
    channels, known = getattr(config, "num_input_channels", None), getattr(config, "num_time_features", 0)
    shape = (2, length, channels) if channels else (2, length)
    return {
        "past_values": torch.randn(shape),
        "past_values_padding": torch.zeros(shape, dtype=torch.long),
        "past_observed_mask": torch.ones(shape),
        "past_time_features": torch.randn(2, length, known),
        "future_values": torch.randn(2, ahead),
        "future_time_features": torch.randn(2, ahead, known),
        "freq": torch.zeros(2, 1, dtype=torch.long),
    }


def episodes_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return what an agent sees, does and gets in two episodes."""
    return {
        "states": torch.randn(2, 12, getattr(config, "state_dim", 1)),
        "actions": torch.randn(2, 12, getattr(config, "act_dim", 1)),
        "rewards": torch.randn(2, 12, 1),
        "returns_to_go": torch.randn(2, 12, 1),
        "timesteps": torch.arange(12).repeat(2, 1),
    }


def regions_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return features of five regions of two images, and where they are."""
    return {
        "visual_feats": torch.randn(2, 5, getattr(config, "visual_feat_dim", 1)),
        "visual_pos": torch.rand(2, 5, getattr(config, "visual_pos_dim", 4)),
    }


def tokens(length: int) -> torch.Tensor:
    """Return two sequences of tokens, none of which is special."""
    return torch.randint(3, 90, (2, length))


def images_for(config: PreTrainedConfig) -> torch.Tensor:
    """Return two images of the size that a configuration, or that of its eyes, gives."""
    eyes = next((part for part in (getattr(config, "vision_config", None), config) if part is not None), config)
    side = getattr(eyes, "image_size", None)
    height, width = side if isinstance(side, (list, tuple)) else (side or 64, side or 64)
    return torch.randn(2, getattr(eyes, "num_channels", None) or 3, height, width)


def patches_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return an image of 4 x 4 patches, each of which is a row."""
    eyes = getattr(config, "vision_config", None) or config
    side, frames = getattr(eyes, "patch_size", 8), getattr(eyes, "temporal_patch_size", 1)
    channels = getattr(eyes, "in_channels", None) or getattr(eyes, "num_channels", None) or 3
    whole = isinstance(side, int) and isinstance(channels, int)
    rows, places = torch.randn(16, channels * frames * side * side if whole else 1), torch.tensor([[1, 4, 4]])
    grids = dict.fromkeys(("grid_thw", "image_grid_thw"), places)
    sizes = {"target_sizes": torch.tensor([[4, 4]]), "merge_sizes": torch.tensor([1])}
    return {"pixel_values": rows, "hidden_states": rows} | grids | sizes


def squares_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return an image of 4 x 4 patches, each of which is a small image."""
    eyes = getattr(config, "vision_config", None) or config
    side = getattr(eyes, "patch_size", None)
    side = side if isinstance(side, int) else 8
    return patches_for(config) | {"pixel_values": torch.randn(16, 3, side, side)}


def rows_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return two images of 4 x 4 patches, each of which is a row."""
    eyes = getattr(config, "vision_config", None) or config
    side, channels = getattr(eyes, "patch_size", None) or 8, getattr(eyes, "num_channels", None) or 3
    places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), dim=-1)
    return {
        "pixel_values": torch.rand(2, 16, channels * side * side if isinstance(side, int) else 1),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4], [4, 4]]),
        "pixel_position_ids": places.view(1, 16, 2).repeat(2, 1, 1),
    }


def sounds_for(config: PreTrainedConfig) -> Iterator[dict[str, torch.Tensor]]:
    """Yield two sounds as waves and as spectra, of either order, with their masks."""
    ears = next((part for part in (getattr(config, "audio_config", None), config) if part is not None), config)
    ears = getattr(ears, "encoder_config", None) or ears
    bins = next((getattr(ears, name) for name in ("num_mel_bins", "feature_size") if hasattr(ears, name)), 80)
    length = 2 * getattr(ears, "max_source_positions", 64)
    masks = ("input_features_mask", "feature_attention_mask", "attention_mask")
    for shape in ((2, bins, length), (2, length, bins)):
        spectra = torch.randn(shape)
        features = {"input_features": spectra, "input_values": torch.randn(2, 3840)}
        yield features
        yield features | dict.fromkeys(masks, torch.ones(2, length, dtype=torch.long))
    yield {"input_values": torch.randn(2, 1, 3840)}
    yield {"input_values": torch.randn(2, getattr(ears, "max_length", None) or length, bins)}
