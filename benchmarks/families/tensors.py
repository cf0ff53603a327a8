"""Tensors of the kinds that the forward passes of transformers name, in the sizes that a configuration gives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedConfig

from families.names import SIZES_BY_NAME, WIDTH

BINS = ("input_size", "feature_projection_input_dim", "num_mel_bins", "feature_size", "input_feat_size")
"""What configurations call the width of a spectrum."""
EARS = ("encoder_config", "asr_config", "semantic_model_config")
"""What they call the part that listens."""


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


def eyes_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a configuration that says what images look like."""
    whole = getattr(config, "vlm_config", None) or config
    return getattr(whole, "vision_config", None) or config


def images_for(config: PreTrainedConfig) -> torch.Tensor:
    """Return two images of the size that a configuration, or that of its eyes, gives."""
    eyes = eyes_of(config)
    inner = None if eyes is config else getattr(eyes, "backbone_config", None)
    side = getattr(eyes, "image_size", None) or getattr(inner, "image_size", None)
    height, width = side if isinstance(side, (list, tuple)) else (side or 64, side or 64)
    return torch.randn(2, getattr(eyes, "num_channels", None) or 3, height, width)


def patches_for(config: PreTrainedConfig) -> Iterator[dict[str, torch.Tensor]]:
    """Yield an image of 4 x 4 patches, each of which is a row or a small image, and two images of them."""
    eyes = eyes_of(config)
    side = getattr(eyes, "patch_size", None) or 8
    frames = getattr(eyes, "temporal_patch_size", None) or getattr(eyes, "patch_temporal", 1)
    channels = getattr(eyes, "in_channels", None) or getattr(eyes, "num_channels", None) or 3
    whole = isinstance(side, int) and isinstance(channels, int)
    rows = torch.randn(16, channels * frames * side * side if whole else 1)
    grids = dict.fromkeys(("grid_thw", "image_grid_thw"), torch.tensor([[1, 4, 4]]))
    beside = grids | {"target_sizes": torch.tensor([[4, 4]]), "merge_sizes": torch.tensor([1])}
    yield {"pixel_values": rows, "hidden_states": rows} | beside
    side = side if isinstance(side, int) else 8
    yield {"pixel_values": torch.randn(16, 3, side, side)} | beside
    side *= getattr(eyes, "spatial_merge_size", 1)
    yield {"pixel_values": torch.randn(16, side, side, 3)} | beside
    yield rows_for(config)


def rows_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return two images of 4 x 4 patches, each of which is a row."""
    eyes = eyes_of(config)
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
    ears = getattr(config, "audio_config", None) or config
    ears = next((getattr(ears, name) for name in EARS if getattr(ears, name, None)), ears)
    bins = next((getattr(ears, name) for name in BINS if hasattr(ears, name)), 80)
    unit = 2 * getattr(ears, "n_window", 1)
    length = -(-2 * getattr(ears, "max_source_positions", 64) // unit) * unit
    masks = ("input_features_mask", "feature_attention_mask", "attention_mask")
    wave = torch.randn(2, 3840)
    for shape in ((2, bins, length), (2, length, bins)):
        spectra = torch.randn(shape)
        features = {"input_features": spectra, "input_values": wave}
        yield features
        features |= {"audio_mel": spectra, "audio_mel_mask": torch.zeros(2, length, dtype=torch.bool)}
        yield features | dict.fromkeys(masks, torch.ones(2, length, dtype=torch.long))
    yield {"input_values": wave.unsqueeze(1), "input_features": torch.randn(2, 1, length, bins)}
    yield {"input_values": wave.unsqueeze(1), "input_features": torch.randn(2, 12, bins)}
    yield {"input_values": torch.randn(2, getattr(ears, "max_length", None) or length, bins)}
    yield {"input_features": torch.randn(2, length, 4 * bins)}


def states_for(config: PreTrainedConfig, width: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield codes, vectors and what a decoder of sounds gets, two of each."""
    codes = getattr(config, "num_codebooks", None) or 1
    yield {"input_ids": tokens(12).repeat(codes, 1)}
    yield {"input_ids": tokens(12).unsqueeze(-1).repeat(1, 1, codes + 1)}
    yield {"input_values": torch.randn(2, 12, width), "decoder_input_values": torch.randn(2, 6, width)}
    yield {"inputs": torch.randn(2, 12, getattr(config, "d_model", None) or width)}
    yield {"inputs_embeds": torch.randn(2, 12, width), "noise_embeds": torch.randn(2, 4, width)}
    inner = getattr(config, "latent_dim", None) or width
    yield {"latents": torch.randn(2, inner, 12), "hidden_states": torch.randn(2, width, 12)}
    yield {"latents": torch.randn(2, 12, inner), "hidden_states": torch.randn(2, 1, 3840)}


def rare_for(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return what few models ask for, in addition to the inputs of a kind."""
    width = getattr(config, "hidden_size", None) or WIDTH
    layers = getattr(config, "target_layer_ids", None) or [0]
    return {
        **dict.fromkeys(("classes_input_ids", "tasks_input_ids"), tokens(12)),
        **dict.fromkeys(("classes_attention_mask", "tasks_attention_mask"), torch.ones(2, 12, dtype=torch.long)),
        "classes_structure": torch.ones(2, dtype=torch.long),
        "task_inputs": tokens(getattr(config, "task_seq_len", 12)),
        "context_hidden_states": torch.randn(2, 6, width * len(layers)),
        "action_embeds": torch.randn(2, 5, getattr(getattr(config, "dit_config", None), "hidden_size", width)),
    }
