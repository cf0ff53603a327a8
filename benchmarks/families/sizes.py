"""Configurations of transformers made small."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from transformers import PreTrainedConfig

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 4, 2, 100
SIZES = {
    "hidden_size d_model n_embd dim embed_dim word_embed_proj_dim n_embed attention_hidden_size embedding_size": WIDTH,
    "output_channels out_hidden_size text_hidden_size entity_emb_size hidden_size_global upsample_groups": WIDTH,
    "encoder_hidden_dim decoder_hidden_dim fpn_hidden_size condition_dim unit_embed_dim lang_embed_dim": WIDTH,
    "spkr_embed_dim t2u_variance_predictor_embed_dim t2u_variance_predictor_hidden_dim upsample_initial_channel": WIDTH,
    "num_pos_feats": WIDTH // 2,
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers depth num_encoder_layers": LAYERS,
    "num_decoder_layers num_blocks speech_encoder_layers t2u_encoder_layers t2u_decoder_layers": LAYERS,
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads": HEADS,
    "encoder_num_attention_heads decoder_num_attention_heads speech_encoder_attention_heads": HEADS,
    "t2u_encoder_attention_heads t2u_decoder_attention_heads": HEADS,
    "num_encoder_attention_heads num_decoder_attention_heads": HEADS,
    "intermediate_size n_inner d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim hidden_dim ffn_hidden_size": 48,
    "feed_forward_proj_dim intermediate_dim ffn_intermediate_size d_inner speech_encoder_intermediate_size": 48,
    "t2u_encoder_ffn_dim t2u_decoder_ffn_dim": 48,
    "num_key_value_heads kv_n_heads": 2,
    "head_dim d_kv rotary_dim kv_channels attention_head_size d_head": 8,
    "qk_nope_head_dim qk_rope_head_dim v_head_dim q_lora_rank kv_lora_rank index_head_dim global_head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings n_positions max_source_positions max_target_positions": 64,
    "num_local_experts num_experts n_routed_experts moe_num_experts": 4,
    "num_experts_per_tok experts_per_token moe_topk num_selected_experts moe_k top_k_experts": 2,
    "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size": 16,
    "moe_shared_expert_intermediate_size shared_experts_intermediate_size hidden_size_per_layer_input": 16,
    "n_group topk_group mamba_n_groups": 1,
    "num_kv_shared_layers": 0,
    "mamba_n_heads mamba_num_heads": 4,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 6,
    "linear_key_head_dim linear_value_head_dim": 8,
    "mamba_d_head mamba_head_dim mamba_d_state ssm_state_size": 16,
    "image_size img_size": 32,
    "image_token_id image_token_index": 95,
    "video_token_id video_token_index": 96,
    "audio_token_id audio_token_index": 97,
    "context_length": 64,
    "context_size": 16,
    "num_queries": 10,
    "num_filters": 8,
    "latent_query_num": 4,
    "prediction_length": 8,
    "num_time_features": 2,
    "patch_size": 8,
}
"""What configurations call their sizes, and how large they become."""
SIZES_BY_NAME = {name: size for words, size in SIZES.items() for name in words.split()}
DEPTHS = {name for name, size in SIZES_BY_NAME.items() if size == LAYERS and re.search("layer|depth", name)} | {
    "depths"
}
WIDTHS = re.compile(
    r"(size|sizes|dim|dims|channels?|width|rank|groups|filters|latents|d_model|d_ff|d_inner|d_kv|pos_feats)($|_)|hidden"
)
NO_WIDTHS = re.compile(r"vocab|image|img|patch|window|kernel|position|chunk|codebook_size|bucket|block_size|num_hidden")
"""Of the names of whole numbers those that are widths; all of them get smaller in proportion where one alone cannot."""
SECTIONS = [[2, 1, 1], [1, 1, 2], [1, 1, 0]]
"""What turns by time, height and width of a head of width 8 (in two orders), and of one that turns by half."""
BACKBONE = {
    "model_type": "resnet", "embedding_size": WIDTH, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
"""Instead of one of timm's, whose weights would be loaded."""
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": SECTIONS[0]}
EFFICIENTNET = {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320, "image_size": 64}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [0]},
    "chameleon_vqgan": {"base_channels": 32, "num_res_blocks": 1},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "chameleon": {"vocabulary_map": {"<image>": 95, "IMGIMGA": 96}},
    "clap_audio_model": {"patch_embeds_hidden_size": 16, "hidden_size": 128},
    "dac": {"encoder_hidden_size": 8, "decoder_hidden_size": 64},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0}},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {
        "num_key_value_heads": HEADS, "swa_num_attention_heads": HEADS, "swa_num_key_value_heads": HEADS,
        "swa_q_lora_rank": 8, "swa_kv_lora_rank": 8, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8, "swa_head_dim": 16,
    },
    "emu3": {"vocabulary_map": {"<image>": 95, "<|extra_200|>": 96, "<|visual token 000000|>": 97}},
    "esm": {"vocab_size": VOCABULARY, "mask_token_id": 3},
    "falcon_h1": {"mamba_d_ssm": 64},
    "glm5_next_text": {"qk_rope_head_dim": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "janus_vqgan": {
        "base_channels": 32, "num_res_blocks": 1, "num_embeddings": 64, "projection_dim": WIDTH,
        "image_token_embed_dim": WIDTH,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_vision_model": {  # a square of four patches is a row of its adapter
        "intermediate_size": 4 * WIDTH, "projector_input_dim": 48, "projector_output_dim": 48, "vision_output_dim": 48,
    },
    "lw_detr": {"projector_scale_factors": [1.0]},
    "lw_detr_vit": {"image_size": 64, "window_block_indices": [0], "out_indices": [1, 2]},
    "molmo2_adapter": {"vision_feature_layer": [1, 0]},
    "moonshine_streaming": {"num_key_value_heads": HEADS},
    "neucodec": {"encoder_hidden_size": 8, "quantization_dim": 64},
    "xcodec2": {"encoder_hidden_size": 8, "quantization_dim": 64},
    "tvp": {"max_img_size": 64, "visual_prompt_size": 8, "num_frames": 4},
    "uvdoc_backbone": {"out_features": [f"stage{number}" for number in range(1, 7)]},
    **{f"vibevoice_acoustic_tokenizer{half}": {"num_filters": 4} for half in ("", "_encoder", "_decoder")},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 16},
    "align": {"projection_dim": 80},
    "align_vision_model": EFFICIENTNET,
    "efficientnet": EFFICIENTNET,
    "edgetam_vision_model": {
        "backbone_config": {
            "model_type": "timm_wrapper", "architecture": "test_resnet", "num_classes": 16,
            "model_args": {"features_only": True, "out_indices": [1, 2, 3, 4]},
        },
        "backbone_channel_list": [96, 192, 48, 32], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "paligemma": {"projection_dim": WIDTH},
    "timm_backbone": {"backbone": "test_resnet"},
    "timm_wrapper": {"architecture": "test_resnet", "num_classes": 16},
    "gemma3n_vision": {"architecture": "test_resnet"},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 2 * WIDTH, "attention_head_dim": 16, "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
    "zaya": {"num_experts_per_tok": 1},
    "nemotron_h": {"n_groups": 1},
    "omdet-turbo": {
        "backbone_config": {**BACKBONE, "out_features": ["stage2", "stage3", "stage4"]},
        "encoder_in_channels": [48, 64, 96],
    },
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "full_attention"], "indexer_n_heads": HEADS, "indexer_kv_heads": 1,
        "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 2, "hc_lowrank": 8,
    },
    "t5gemma2_text": {"dropout_rate": 0.0},
}  # fmt: skip
"""What a family, or a part of one, needs beside."""
SPECIAL = "pad_token_id bos_token_id eos_token_id decoder_start_token_id sep_token_id cls_token_id audio_pad_token_id"


def variants(plain: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """Yield changes of a configuration, those that make it smallest first, each once."""
    seen: set[str] = set()
    for changes in tried(plain):
        if repr(changes) not in seen:
            seen.add(repr(changes))
            yield changes


def tried(plain: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """Yield changes of a configuration, those that make it smallest first."""
    whole, turns = changes_of(plain, named), "rope" in str(plain)
    for sizes_of in (named, fields_named, filled, *(partial(in_proportion, divisor=one) for one in (16, 8, 4))):
        yield from edits_of(changes_of(plain, sizes_of), SECTIONS if turns else [])
    yield {name: value for name, value in whole.items() if name in (*DEPTHS, "vocab_size", *plain.sub_configs)}
    yield {name: value for name, value in whole.items() if name in DEPTHS}


def edits_of(whole: dict[str, Any], sections: Collection[list[int]]) -> Iterator[dict[str, Any]]:
    """Yield changes, then those with sections of a head that turn, and without what some families do not take."""
    yield whole
    for section in sections:
        yield with_rope(whole, section)
    if "num_key_value_heads" in str(whole):
        yield instead(whole, "num_key_value_heads", HEADS)
    for left_out in (("num_key_value_heads",), ("head_dim",), ("image_size", "patch_size"), ("layer_types",)):
        if any(name in str(whole) for name in left_out):
            yield without(whole, left_out)
    yield without(whole, [name for name, value in whole.items() if isinstance(value, list)])
    yield {**without(whole, ["layer_types"]), "use_cache": False}  # some caches serve attention alone


def with_rope(changes: dict[str, Any], section: list[int]) -> dict[str, Any]:
    """Return changes with the sections of a head that turn by time, height and width, where the code has its own."""
    text = changes.get("text_config")
    if text is not None:
        return {**changes, "text_config": with_rope(text, section)}
    return {**changes, "rope_parameters": {**ROPE, "mrope_section": section}}


def without(changes: dict[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """Return changes, those of parts too, without some names."""
    kept = {name: value for name, value in changes.items() if name not in left_out}
    return {name: without(value, left_out) if "model_type" in str(value) else value for name, value in kept.items()}


def instead(changes: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return changes, those of parts too, with another value."""
    parts = {key: instead(part, name, value) for key, part in changes.items() if "model_type" in str(part)}
    return {**changes, **parts, **({name: value} if name in changes else {})}


def changes_of(plain: PreTrainedConfig, sizes_of: Callable[[PreTrainedConfig], dict[str, Any]]) -> dict[str, Any]:
    """Return new values for the sizes that a configuration has, for its parts too."""
    changes = sizes_of(plain)
    changes |= {name: VOCABULARY for name, value in numbers_of(plain) if "vocab" in name and value > VOCABULARY}
    changes |= {name: 0 for name in SPECIAL.split() if type(value_of(plain, name)) is int}
    if "depths" in changes:  # it has stages, which halve the image
        changes = without(changes, ("image_size", "patch_size", "num_hidden_layers"))
    else:
        changes |= by_layer(plain, changes)
    rope = value_of(plain, "rope_parameters")
    if isinstance(rope, dict) and "mrope_section" in rope:
        changes["rope_parameters"] = {**rope, "mrope_section": SECTIONS[0]}
    for name in type(plain).sub_configs:
        part = getattr(plain, name, None)
        if isinstance(part, PreTrainedConfig):
            timm = part.model_type == "timm_backbone"
            changes[name] = BACKBONE if timm else {"model_type": part.model_type, **changes_of(part, sizes_of)}
            if (
                hasattr(part, "depths") and hasattr(part, "out_features") and not timm
            ):  # the stages that are read are its owner's choice
                changes[name] = {"out_features": part.out_features} | changes[name]
    settable = {name: value for name, value in changes.items() if not is_worked_out(plain, name)}
    return settable | OWN.get(plain.model_type, {})


def named(plain: PreTrainedConfig) -> dict[str, Any]:
    """Return the sizes that a configuration has, each as small as its name allows."""
    changes: dict[str, Any] = {name: size for name, size in SIZES_BY_NAME.items() if type(value_of(plain, name)) is int}
    changes |= {name: shrunk(name, value) for name, value in vars(plain).items() if is_sizes(value)}
    changes |= {name: part_of(value, 32) for name, value in vars(plain).items() if "feature_sizes" in name}
    if vars(plain).get("head_dim", 0) is None:  # worked out elsewhere from the sizes, or missed
        changes["head_dim"] = SIZES_BY_NAME["head_dim"]
    return changes


def fields_named(plain: PreTrainedConfig) -> dict[str, Any]:
    """Return small sizes of what a configuration declares, not of what it works out from that."""
    declared = {*type(plain).__dataclass_fields__, *type(plain).attribute_map}
    return {name: value for name, value in named(plain).items() if name in declared}


def filled(plain: PreTrainedConfig) -> dict[str, Any]:
    """Return small sizes of what a configuration declares, also of what it leaves open."""
    missing = {name for name, value in vars(plain).items() if value is None}
    return fields_named(plain) | {name: size for name, size in SIZES_BY_NAME.items() if name in missing}


def in_proportion(plain: PreTrainedConfig, divisor: int) -> dict[str, Any]:
    """Return the sizes of a configuration with all widths divided by one number, so that what matches still does."""
    counts = (*DEPTHS, "num_queries")
    changes = {name: value for name, value in fields_named(plain).items() if name in counts or "experts" in name}
    values = [*numbers_of(plain), *((name, value) for name, value in vars(plain).items() if is_sizes(value))]
    widths = {name: value for name, value in values if WIDTHS.search(name) and not NO_WIDTHS.search(name)}
    images = {name: value for name, value in vars(plain).items() if "feature_sizes" in name or is_large(name, value)}
    changes |= {name: part_of(value, 8) for name, value in images.items()}
    return changes | {name: divided(value, divisor) for name, value in widths.items()}


def is_large(name: str, side: Any) -> bool:
    """Return whether a value is the side of a large image, or both."""
    return name == "image_size" and min(side if isinstance(side, (list, tuple)) else [side or 0]) >= 512


def part_of(side: Any, divisor: int) -> Any:
    """Return a part of a side of an image, or of each of a list of them."""
    return [part_of(one, divisor) for one in side] if isinstance(side, (list, tuple)) else side // divisor


def divided(width: Any, divisor: int) -> Any:
    """Return a width, or each of a list of them, divided where it is one and goes."""
    if not isinstance(width, int):
        return [divided(one, divisor) for one in width]
    return width // divisor if width >= WIDTH and width % divisor == 0 else width


def numbers_of(plain: PreTrainedConfig) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a configuration by name."""
    yield from ((name, value) for name, value in vars(plain).items() if type(value) is int)


def by_layer(plain: PreTrainedConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the lists that have an entry a layer cut to a layer of each kind, and the number of layers."""
    depth = value_of(plain, "num_hidden_layers")
    lists = {name: value for name, value in vars(plain).items() if isinstance(value, list) and len(value) == depth}
    kinds = {name: list(dict.fromkeys(value)) for name, value in lists.items() if type(value[0]) is str}
    count = max([LAYERS, *map(len, kinds.values())])
    cut = {name: (kinds.get(name, changes.get(name, value)) * count)[:count] for name, value in lists.items()}
    depths = {"num_hidden_layers", plain.attribute_map.get("num_hidden_layers")} if lists else set()
    return cut | {name: count for name in depths if name in changes}


def value_of(plain: PreTrainedConfig, name: str) -> Any:
    """Return what a configuration has by a name, None for nothing."""
    try:
        return getattr(plain, name, None)
    except Exception:  # a class of its own refuses values that are each layer's own: what its layers have by default
        return type(plain).__dataclass_fields__[name].default


def is_worked_out(plain: PreTrainedConfig, name: str) -> bool:
    """Return whether a configuration works a value out by code, so that it cannot be set."""
    return isinstance(inspect.getattr_static(type(plain), name, None), property)


def is_sizes(value: Any) -> bool:
    """Return whether a value is a list of sizes, one a stage."""
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(type(item) is int for item in value)


def shrunk(name: str, sizes: list[int]) -> list[int]:
    """Return the sizes of stages made small: one layer a stage, widths in the proportion that they have."""
    if name in ("depths", "layers", "num_layers", "block_sizes"):
        return [1] * len(sizes)
    if min(sizes) < WIDTH or not any(word in name for word in ("size", "dim", "channel")):
        return sizes
    return [size * WIDTH // min(sizes) // 8 * 8 for size in sizes]
