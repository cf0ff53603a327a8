"""Networks of packages of language, sound, tables and diffusion."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn, rand, randint, randn, tensor

Network = tuple[nn.Module, Any]
NETWORKS: dict[tuple[str, str], Callable[[], Network]] = {}


def add(package: str, name: str, path: str, inputs: Callable[[], Any], *args: Any, **kwargs: Any) -> None:
    """Register a class (or function that makes a model) of a package by its path, with its arguments and inputs."""
    module, _, kind = path.rpartition(".")
    NETWORKS[package, name] = lambda: (getattr(import_module(module), kind)(*args, **kwargs), inputs())


# ---------- diffusers

BLOCKS = {"block_out_channels": (32, 64), "norm_num_groups": 8, "layers_per_block": 1}
UNET = BLOCKS | {"sample_size": 16, "attention_head_dim": 8}
CROSSED = UNET | {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 24}
CODER = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
HEADS = {"num_attention_heads": 2, "in_channels": 4, "num_layers": 2}
ALL = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
SKIPS = {
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "time_embedding_type": "fourier",
}
BESIDE = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
SIMPLE = {
    "down_block_types": ("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "resnet_time_scale_shift": "scale_shift",
}
FLOW = {"patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (4, 4, 8)}
ROBOT = {
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownResnetBlock1D",) * 3,
    "up_block_types": ("UpResnetBlock1D",) * 2,
    "mid_block_type": "MidResTemporalBlock1D",
    "out_block_type": "OutConv1DBlock",
    "act_fn": "swish",
    "norm_num_groups": 4,
    "use_timestep_embedding": True,
    "time_embedding_type": "positional",
}


def noisy(*shape: int, **more: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """Return what makes noise of a shape, the time and more, by name."""
    return lambda: (
        {"sample": randn(2, *shape), "timestep": tensor([5.0, 6.0])} | {n: make() for n, make in more.items()}
    )


def hidden(*shape: int, **more: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """Return the same for transformers, which name it otherwise."""
    start = {"hidden_states": lambda: randn(2, *shape), "timestep": lambda: tensor([5.0, 6.0])}
    return lambda: {name: make() for name, make in (start | more).items()}


def said(length: int, width: int) -> dict[str, Callable[[], Any]]:
    """Return what makes the states of a text."""
    return {"encoder_hidden_states": lambda: randn(2, length, width)}


def diffuser(name: str, kind: str, inputs: Callable[[], Any], **sizes: Any) -> None:
    """Register a class of diffusers."""
    add("diffusers", name, f"diffusers.{kind}", inputs, **sizes)


IMAGE = lambda: {"sample": randn(2, 3, 32, 32)}  # noqa: E731
PLACES = {"img_ids": lambda: randn(16, 3), "txt_ids": lambda: randn(5, 3)}
diffuser("unet_2d", "UNet2DModel", noisy(3, 16, 16), **UNET, **ALL)
diffuser("unet_2d_skip", "UNet2DModel", noisy(3, 16, 16), **UNET, **SKIPS)
diffuser("unet_1d", "UNet1DModel", noisy(14, 64), in_channels=14, out_channels=14, **ROBOT)
diffuser("unet_2d_condition", "UNet2DConditionModel", noisy(4, 16, 16, **said(7, 24)), **CROSSED, **BESIDE)
diffuser("unet_2d_simple", "UNet2DConditionModel", noisy(4, 16, 16, **said(7, 24)), **CROSSED, **SIMPLE)
control = noisy(4, 16, 16, controlnet_cond=lambda: randn(2, 3, 32, 32), **said(7, 24))
diffuser(
    "controlnet",
    "ControlNetModel",
    control,
    **BLOCKS,
    down_block_types=BESIDE["down_block_types"],
    cross_attention_dim=24,
    conditioning_embedding_out_channels=(16, 32),
)
diffuser("autoencoder_kl", "AutoencoderKL", IMAGE, **BLOCKS, **CODER)
diffuser("vq_model", "VQModel", IMAGE, **BLOCKS, **CODER, num_vq_embeddings=16)
diffuser("autoencoder_tiny", "AutoencoderTiny", IMAGE, encoder_block_out_channels=(16,) * 4)
diffuser(
    "autoencoder_wan",
    "AutoencoderKLWan",
    lambda: {"sample": randn(1, 3, 5, 16, 16)},
    base_dim=4,
    z_dim=8,
    dim_mult=[1, 1, 1, 1],
    num_res_blocks=1,
)
diffuser(
    "dit",
    "DiTTransformer2DModel",
    hidden(4, 8, 8, timestep=lambda: tensor([5, 6]), class_labels=lambda: tensor([1, 2])),
    **HEADS,
    attention_head_dim=16,
    sample_size=8,
    num_embeds_ada_norm=8,
)
diffuser(
    "pixart",
    "PixArtTransformer2DModel",
    hidden(4, 8, 8, added_cond_kwargs=lambda: {"aspect_ratio": None, "resolution": None}, **said(5, 24)),
    **HEADS,
    attention_head_dim=16,
    sample_size=8,
    cross_attention_dim=32,
    caption_channels=24,
    use_additional_conditions=False,
)
diffuser(
    "sd3",
    "SD3Transformer2DModel",
    hidden(4, 8, 8, pooled_projections=lambda: randn(2, 64), **said(5, 32)),
    **HEADS | {"num_attention_heads": 4},
    sample_size=8,
    patch_size=1,
    attention_head_dim=8,
    joint_attention_dim=32,
    caption_projection_dim=32,
    pooled_projection_dim=64,
    out_channels=4,
    pos_embed_max_size=8,
    qk_norm="rms_norm",
)
diffuser(
    "flux",
    "FluxTransformer2DModel",
    hidden(16, 4, pooled_projections=lambda: randn(2, 32), **PLACES, **said(5, 32)),
    **FLOW,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    pooled_projection_dim=32,
)
diffuser(
    "sana",
    "SanaTransformer2DModel",
    hidden(4, 8, 8, **said(5, 8)),
    **HEADS | {"num_attention_heads": 4},
    out_channels=4,
    attention_head_dim=4,
    num_cross_attention_heads=2,
    cross_attention_head_dim=8,
    cross_attention_dim=16,
    caption_channels=8,
    sample_size=8,
    patch_size=1,
)
diffuser(
    "wan",
    "WanTransformer3DModel",
    hidden(4, 2, 8, 8, timestep=lambda: tensor([5, 6]), **said(6, 16)),
    **HEADS,
    attention_head_dim=12,
    out_channels=4,
    text_dim=16,
    ffn_dim=32,
    rope_max_seq_len=32,
)

# ---------- language


def decoder(name: str, **options: Any) -> None:
    """Register a decoder of x-transformers."""

    def build() -> Network:
        made = import_module("x_transformers")
        layers = made.Decoder(dim=32, depth=2, heads=4, attn_dim_head=8, **options)
        return made.TransformerWrapper(num_tokens=100, max_seq_len=32, attn_layers=layers), (randint(0, 100, (2, 12)),)

    NETWORKS["x-transformers", name] = build


decoder("plain")
decoder("rotary_glu_rmsnorm", rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True)
decoder("alibi", alibi_pos_bias=True, alibi_num_heads=2)
decoder("macaron", macaron=True)
decoder("talking_heads", attn_pre_talking_heads=True, attn_post_talking_heads=True)
decoder("memory", attn_num_mem_kv=3)
decoder("grouped_queries", attn_kv_heads=2)
decoder("one_key_head", attn_one_kv_head=True)
decoder("l2_distance", attn_l2_distance=True)


def gpt(name: str, **options: Any) -> None:
    """Register a language model of litgpt."""

    def build() -> Network:
        made = import_module("litgpt")
        sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 32, "vocab_size": 64, "padded_vocab_size": 64}
        return made.GPT(made.Config(**sizes, **options)), (randint(0, 64, (2, 12)),)

    NETWORKS["litgpt", name] = build


NEW = {"norm_class_name": "RMSNorm", "bias": False, "parallel_residual": False, "intermediate_size": 48}
gpt("pythia")
gpt("llama", **NEW, n_query_groups=2, mlp_class_name="LLaMAMLP")
gpt("gemma", **NEW, n_query_groups=1, head_size=8, mlp_class_name="GemmaMLP", scale_embeddings=True)
gpt("mixture", **NEW, n_query_groups=2, mlp_class_name="LLaMAMoE", n_expert=4, n_expert_per_token=2)


def adapted(name: str, kind: str, merged: bool = False, **options: Any) -> None:
    """Register a small Llama of transformers with an adapter of peft."""

    def build() -> Network:
        from transformers import LlamaConfig, LlamaForCausalLM

        peft = import_module("peft")
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        plain = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
        model = peft.get_peft_model(plain, getattr(peft, kind)(task_type="CAUSAL_LM", **options))
        return model.merge_and_unload() if merged else model, {"input_ids": randint(0, 64, (2, 12))}

    NETWORKS["peft", name] = build


adapted("lora", "LoraConfig", r=4, target_modules=["q_proj", "v_proj", "up_proj"])
adapted("lora_merged", "LoraConfig", merged=True, r=4, target_modules=["q_proj", "v_proj", "up_proj"])
adapted("ia3", "IA3Config", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])

WORDS = {"num_tokens": 50, "dim": 32, "depth": 2, "heads": 4, "dim_head": 8}
TEXT = lambda: (randint(0, 50, (2, 32)),)  # noqa: E731
add("performer-pytorch", "performer", "performer_pytorch.PerformerLM", TEXT, max_seq_len=32, nb_features=16, **WORDS)
add("linformer", "linformer", "linformer.LinformerLM", TEXT, seq_len=32, k=8, **WORDS)
add("palm-pytorch", "palm", "palm_pytorch.PaLM", TEXT, **WORDS)
add("gateloop-transformer", "gateloop", "gateloop_transformer.Transformer", TEXT, num_tokens=50, dim=32, depth=2)

# ---------- diffusion, sound, tables

STEPS = lambda: (randn(2, 3, 16, 16), tensor([5, 6]))  # noqa: E731
SMALL = {"dim": 16, "dim_mults": (1, 2), "channels": 3}
add("denoising-diffusion-pytorch", "unet", "denoising_diffusion_pytorch.Unet", STEPS, **SMALL)
waves = lambda: (randn(2, 3, 32), tensor([5, 6]))  # noqa: E731
add("denoising-diffusion-pytorch", "unet_1d", "denoising_diffusion_pytorch.Unet1D", waves, **SMALL)
UVIT = "denoising_diffusion_pytorch.simple_diffusion.UViT"
add("denoising-diffusion-pytorch", "uvit", UVIT, lambda: (randn(2, 3, 16, 16), rand(2)), vit_depth=1, **SMALL)
add(
    "nystrom-attention",
    "nystromformer",
    "nystrom_attention.Nystromformer",
    lambda: (randn(2, 24, 32),),
    dim=32,
    dim_head=8,
    heads=4,
    depth=2,
    num_landmarks=8,
)
add("conformer", "conformer", "conformer.Conformer", lambda: (randn(2, 20, 32),), dim=32, depth=2, dim_head=8, heads=4)
