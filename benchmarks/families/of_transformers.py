"""A model of each family of transformers in a small size, and inputs of the kinds that its forward pass names."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 4, 2, 100
SIZES = {
    "hidden_size d_model n_embd dim embed_dim word_embed_proj_dim n_embed attention_hidden_size embedding_size": WIDTH,
    "out_hidden_size text_hidden_size": WIDTH,
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers depth num_encoder_layers": LAYERS,
    "num_decoder_layers num_blocks": LAYERS,
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads": HEADS,
    "encoder_num_attention_heads decoder_num_attention_heads": HEADS,
    "intermediate_size n_inner d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim hidden_dim ffn_hidden_size": 48,
    "feed_forward_proj_dim intermediate_dim ffn_intermediate_size": 48,
    "num_key_value_heads": 2,
    "head_dim d_kv rotary_dim kv_channels attention_head_size": 8,
    "qk_nope_head_dim qk_rope_head_dim v_head_dim q_lora_rank kv_lora_rank index_head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings n_positions max_source_positions max_target_positions": 64,
    "num_local_experts num_experts n_routed_experts moe_num_experts": 4,
    "num_experts_per_tok experts_per_token moe_topk num_selected_experts moe_k": 2,
    "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size": 16,
    "n_group topk_group mamba_n_groups": 1,
    "mamba_n_heads mamba_num_heads": 4,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 6,
    "linear_key_head_dim linear_value_head_dim": 8,
    "mamba_d_head mamba_head_dim mamba_d_state ssm_state_size": 16,
    "image_size img_size": 32,
    "patch_size": 8,
}
"""What configurations call their sizes, and how large they become."""
SIZES_BY_NAME = {name: size for words, size in SIZES.items() for name in words.split()}
DEPTHS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "depths",
    "depth",
)
BACKBONE = {
    "model_type": "resnet", "embedding_size": WIDTH, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
"""Instead of one of timm's, whose weights would be loaded."""
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [0]},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "esm": {"vocab_size": VOCABULARY, "mask_token_id": 3},
    "falcon_h1": {"mamba_d_ssm": 64},
    "glm5_next_text": {"qk_rope_head_dim": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 16},
}
"""What a family needs beside."""
SPECIAL = "pad_token_id bos_token_id eos_token_id decoder_start_token_id sep_token_id cls_token_id"
LARGE = 25_000_000
"""A model of more parameters was not made small."""


def names() -> list[str]:
    """Return the families that AutoModel knows."""
    return sorted(MODEL_MAPPING_NAMES)


def model_of(family: str) -> tuple[str, nn.Module, Any]:
    """Return the name of a family's model, the model with small sizes, and inputs that it runs on."""
    kind, first = CONFIG_MAPPING[family], None
    for changes in variants(kind()):
        try:
            with torch.device("meta"):
                parameters = sum(parameter.numel() for parameter in AutoModel.from_config(kind(**changes)).parameters())
            if parameters > LARGE:
                raise NotImplementedError(f"{parameters:,} parameters in the smallest size tried")
            model = AutoModel.from_config(kind(**changes)).eval()
            return type(model).__name__, model, inputs_of(model)
        except Exception as error:  # each configuration refuses in its own way: with other sizes then
            first = first or error
    raise first or NotImplementedError(f"{family} has no configuration")


# ---------- sizes


def variants(plain: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """Yield changes of a configuration, those that make it smallest first."""
    whole = changes_of(plain) | OWN.get(plain.model_type, {})
    yield whole
    yield with_rope(whole)
    if "num_key_value_heads" in str(whole):
        yield instead(whole, "num_key_value_heads", HEADS)
    for left_out in (("num_key_value_heads",), ("head_dim",), ("image_size", "patch_size"), ("layer_types",)):
        if any(name in str(whole) for name in left_out):
            yield without(whole, left_out)
    yield without(whole, [name for name, value in whole.items() if isinstance(value, list)])
    yield {**without(whole, ["layer_types"]), "use_cache": False}  # some caches serve attention alone
    yield {name: value for name, value in whole.items() if name in (*DEPTHS, "vocab_size", *plain.sub_configs)}
    yield {name: value for name, value in whole.items() if name in DEPTHS}


def with_rope(changes: dict[str, Any]) -> dict[str, Any]:
    """Return changes with the sections of a head that turn by time, height and width, where the code has its own."""
    text = changes.get("text_config")
    if text is not None:
        return {**changes, "text_config": with_rope(text)}
    return {**changes, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}


def without(changes: dict[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """Return changes, those of parts too, without some names."""
    kept = {name: value for name, value in changes.items() if name not in left_out}
    return {name: without(value, left_out) if "model_type" in str(value) else value for name, value in kept.items()}


def instead(changes: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return changes, those of parts too, with another value."""
    parts = {key: instead(part, name, value) for key, part in changes.items() if "model_type" in str(part)}
    return {**changes, **parts, **({name: value} if name in changes else {})}


def changes_of(plain: PreTrainedConfig) -> dict[str, Any]:
    """Return new values for the sizes that a configuration has, for its parts too."""
    changes: dict[str, Any] = {name: size for name, size in SIZES_BY_NAME.items() if type(value_of(plain, name)) is int}
    changes |= {name: 0 for name in SPECIAL.split() if type(value_of(plain, name)) is int}
    changes |= {name: shrunk(name, value) for name, value in vars(plain).items() if is_sizes(value)}
    if "depths" in changes:  # it has stages, which halve the image
        changes = without(changes, ("image_size", "patch_size", "num_hidden_layers"))
    if vars(plain).get("head_dim", 0) is None:  # worked out elsewhere from the sizes, or missed
        changes["head_dim"] = SIZES_BY_NAME["head_dim"]
    kinds = value_of(plain, "layer_types")
    if isinstance(kinds, list):  # a layer of each kind
        changes["layer_types"] = (list(dict.fromkeys(kinds)) * LAYERS)[:LAYERS]
    rope = value_of(plain, "rope_parameters")
    if isinstance(rope, dict) and "mrope_section" in rope:  # what a head of width 8 has
        changes["rope_parameters"] = {**rope, "mrope_section": [2, 1, 1]}
    for name in type(plain).sub_configs:
        part = getattr(plain, name, None)
        if isinstance(part, PreTrainedConfig):
            timm = part.model_type == "timm_backbone"
            changes[name] = BACKBONE if timm else {"model_type": part.model_type, **changes_of(part)}
    return changes


def value_of(plain: PreTrainedConfig, name: str) -> Any:
    """Return what a configuration has by a name, None for nothing (and for what differs by layer)."""
    try:
        return getattr(plain, name, None)
    except Exception:  # a class of its own refuses values that are each layer's own
        return None


def is_sizes(value: Any) -> bool:
    """Return whether a value is a list of sizes, one a stage."""
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(type(item) is int for item in value)


def shrunk(name: str, sizes: list[int]) -> list[int]:
    """Return the sizes of stages made small: one layer a stage, widths in the proportion that they have."""
    if name in ("depths", "layers", "num_layers"):
        return [1] * len(sizes)
    if min(sizes) < WIDTH or not any(word in name for word in ("size", "dim", "channels")):
        return sizes
    return [size * WIDTH // min(sizes) // 8 * 8 for size in sizes]


# ---------- inputs


def inputs_of(model: nn.Module) -> dict[str, Any]:
    """Return inputs on which a model runs: of the kinds that its forward pass names, the most that go together."""
    known, first = set(inspect.signature(model.forward).parameters), None
    for kinds in kinds_of(model.config, model.main_input_name):
        inputs = {name: value for name, value in kinds.items() if name in known}
        if not inputs or set(inputs) <= {"decoder_input_ids"}:
            continue
        try:
            with torch.no_grad():
                model(**inputs)
        except Exception as error:  # not the inputs that it wants
            first = first or error
        else:
            return inputs
    raise first or NotImplementedError(f"inputs of the kind {model.main_input_name}")


def kinds_of(config: PreTrainedConfig, main: str) -> Iterator[dict[str, Any]]:
    """Yield inputs by name, those for the main kind first."""
    text = {"input_ids": tokens(12), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    width = getattr(config, "hidden_size", None) or WIDTH
    boxes = {"bbox": torch.zeros(2, 12, 4, dtype=torch.long), "query_embeds": torch.randn(2, 12, width)}
    images = {"pixel_values": images_for(config)}
    answers = {"decoder_input_ids": tokens(6)}
    sounds = [features | answers for features in sounds_for(config)]
    if main.startswith("input_"):
        yield from [] if main == "input_ids" else sounds
        yield from (text | boxes | images | answers, text | boxes | answers)
        yield from [features | text for features in sounds]
    yield from (images | answers, patches_for(config))
    yield from sounds
    yield {"inputs_embeds": torch.randn(2, 12, width)}
    known = torch.randn(2, 12, getattr(config, "encoder_hidden_size", None) or width)
    yield text | boxes | {"encoder_hidden_states": known}
    eyes = getattr(config, "vision_config", None) or config
    frames = getattr(eyes, "num_frames", None) or getattr(eyes, "frames_per_clip", None) or 8
    video = images["pixel_values"].unsqueeze(1).repeat(1, frames, 1, 1, 1)
    yield text | {"pixel_values": video, "pixel_values_videos": video}


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
    side, frames = getattr(config, "patch_size", 8), getattr(config, "temporal_patch_size", 1)
    channels = getattr(config, "in_channels", None) or getattr(config, "num_channels", None) or 3
    rows = torch.randn(16, channels * frames * side * side if isinstance(side, int) else 1)
    return {"pixel_values": rows, "hidden_states": rows, "grid_thw": torch.tensor([[1, 4, 4]])}


def sounds_for(config: PreTrainedConfig) -> Iterator[dict[str, torch.Tensor]]:
    """Yield two sounds as waves and as spectra, of either order, with their masks."""
    ears = next((part for part in (getattr(config, "audio_config", None), config) if part is not None), config)
    ears = getattr(ears, "encoder_config", None) or ears
    bins = next((getattr(ears, name) for name in ("num_mel_bins", "feature_size") if hasattr(ears, name)), 80)
    length = 2 * getattr(ears, "max_source_positions", 64)
    masks = ("input_features_mask", "feature_attention_mask", "attention_mask")
    for shape in ((2, bins, length), (2, length, bins)):
        spectra = torch.randn(shape)
        features = {"input_features": spectra, "input_values": torch.randn(2, 4000)}
        yield features
        yield features | dict.fromkeys(masks, torch.ones(2, length, dtype=torch.long))
    yield {"input_values": torch.randn(2, 1, 4000)}
    yield {"input_values": torch.randn(2, getattr(ears, "max_length", None) or length, bins)}
