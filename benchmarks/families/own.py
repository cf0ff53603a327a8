"""What single families, or parts of them, need beside small sizes."""

from __future__ import annotations

from typing import Any

from families.names import HEADS, VOCABULARY, WIDTH

SECTIONS = [[2, 1, 1], [1, 1, 2], [1, 1, 0]]
"""What turns by time, height and width of a head of width 8 (in two orders), and of one that turns by half."""
BACKBONE = {
    "model_type": "resnet", "embedding_size": WIDTH, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
"""Instead of one of timm's, whose weights would be loaded."""
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": SECTIONS[0]}
EFFICIENTNET = {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320, "image_size": 64}
VISION = {"num_hidden_layers": 2, "num_attention_heads": HEADS, "image_size": 32, "patch_size": 8}
DINO = {"model_type": "dinov2", **VISION, "hidden_size": WIDTH, "image_size": 64, "patch_size": 16}
LCNET = {
    "model_type": "pp_lcnet_v4", "stem_channels": [3, 16, 32], "out_features": BACKBONE["out_features"],
    "block_configs": [
        [[3, 32, 32, 1, True]], [[3, 32, 48, 2, False]], [[3, 48, 64, 2, True]], [[3, 64, 96, 2, False]],
    ],
}  # fmt: skip
RATIOS = {"longratio": 7, "midratio": 5, "shortratio": 3}
INTRACLASS = {
    **dict.fromkeys(("reduce_channel", "return_channel"), (1, 1, 0)),
    **{f"vertical_long_to_small_conv_{name}": ((side, 1), 1, (side // 2, 0)) for name, side in RATIOS.items()},
    **{f"horizontal_small_to_long_conv_{name}": ((1, side), 1, (0, side // 2)) for name, side in RATIOS.items()},
    **{f"symmetric_conv_long_{name}": (side, 1, side // 2) for name, side in RATIOS.items()},
}
"""Kernels, strides and paddings of a block that looks along rows and columns."""
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [0]},
    "chameleon_vqgan": {"base_channels": 32, "num_res_blocks": 1},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "chameleon": {"vocabulary_map": {"<image>": 95, "IMGIMGA": 96}},
    "clap_audio_model": {"patch_embeds_hidden_size": 16, "hidden_size": 128},
    "clvp_decoder": {"decoder_fixing_codes": [83, 45, 45, 24]},
    "clvp_encoder": {"hidden_size": 128, "projection_dim": 128},
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
    "granite4_vision": {
        "vision_config": {"model_type": "clip_vision_model", **VISION, "hidden_size": 64, "intermediate_size": 48},
        "downsample_rate": "2/4", "deepstack_layer_map": [[1, 0]], "spatial_target_layers": [1, 1, 1, 1],
    },
    "depth_pro": {
        **dict.fromkeys(("image_model_config", "patch_model_config", "fov_model_config"), DINO), "patch_size": 64,
        "fusion_hidden_size": WIDTH, "intermediate_hook_ids": [1, 0], "intermediate_feature_dims": [WIDTH, WIDTH],
        "scaled_images_feature_dims": [WIDTH] * 3, "image_size": 256,
    },
    "perception_lm": {
        "vision_config": {
            "model_type": "timm_wrapper", "architecture": "test_vit", "num_classes": 16, "model_args": {"embed_dim": 64}
        }
    },
    "pp_ocrv6_small_det": {
        "backbone_config": LCNET, "layer_list_out_channels": [32, 48, 64, 96], "neck_out_channels": WIDTH,
    },
    "pp_ocrv6_medium_det": {
        "backbone_config": LCNET, "neck_out_channels": 64, "scale_factor_list": [1, 2, 4, 8],
        "intraclass_block_config": INTRACLASS,
    },
    "apertus1p5": {"image_token_offset": 60, "audio_token_offset": 76},
    "apertus1p5_vision_tokenizer": {"codebook_size": 16, "base_channels": WIDTH, "num_res_blocks": 1},
    "wavtokenizer_encoder": {"codebook_size": 16, "codebook_dim": WIDTH},
    "deepseek_ocr2_text": {
        "mlp_layer_types": ["dense", "sparse"], "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2,
    },
    "step3p5": {"sliding_window": 8},
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
        "encoder_in_channels": [48, 64, 96], "apply_layernorm_after_vision_backbone": False,
    },
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "full_attention"], "indexer_n_heads": HEADS, "indexer_kv_heads": 1,
        "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 2, "hc_lowrank": 8,
    },
    "t5gemma2_text": {"dropout_rate": 0.0},
}  # fmt: skip
"""What a family, or a part of one, needs beside."""
