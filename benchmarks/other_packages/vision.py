"""Small networks for images of packages that are installed from PyPI."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import randn

Networks = dict[str, Callable[[], tuple[Any, Any]]]


VIT = {
    "image_size": 32, "img_size": 32, "patch_size": 8, "image_patch_size": 8, "num_classes": 10, "dim": 32, "depth": 2,
    "heads": 4, "mlp_dim": 48, "dim_head": 8, "cls_depth": 1, "max_tokens_per_depth": (8, 4), "frames": 4,
    "frame_patch_size": 2, "seq_len": 32, "spatial_depth": 1, "temporal_depth": 1, "num_residual_streams": 2,
    "freq_patch_size": 8, "num_slots": 4,
}  # fmt: skip
LEVELS = {"dim": (16, 24, 32, 40), "depth": (1, 1, 1, 1)}
IMAGE, LARGE, VIDEO = (2, 3, 32, 32), (2, 3, 64, 64), (2, 3, 4, 32, 32)
OF_VIT: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    **{
        name: ("ViT", IMAGE, {})
        for name in [
            "vit",
            "ats_vit",
            "learnable_memory_vit",
            "parallel_vit",
            "vit_5",
            "vit_for_small_dataset",
            "vit_with_decorr",
            "vit_with_keel_post_ln",
            "vit_with_patch_dropout",
            "vit_with_patch_merger",
            "vat",
        ]
    },
    **{
        f"simple_vit{name}": ("SimpleViT", IMAGE, {})
        for name in [
            "",
            "_with_fft",
            "_with_hyper_connections",
            "_with_qk_norm",
            "_with_register_tokens",
            "_with_specialized_cls",
            "_with_value_residual",
            "_orthog_residual_update",
        ]
    },
    "deepvit": ("DeepViT", IMAGE, {}),
    "cait": ("CaiT", IMAGE, {}),
    "xcit": ("XCiT", IMAGE, {}),
    "rvt": ("RvT", IMAGE, {}),
    "normalized_vit": ("nViT", IMAGE, {}),
    "jet_vit": ("JetViT", IMAGE, {}),
    "jumbo_vit": ("JumboViT", IMAGE, {}),
    "looped_vit": ("LoopedViT", IMAGE, {"pre_loop_depth": 1, "num_looped_blocks": 1, "post_loop_depth": 1}),
    "simple_uvit": ("SimpleUViT", IMAGE, {}),
    "vit_detpool": ("ViTDetPool", IMAGE, {}),
    "wwt": ("WWT", IMAGE, {}),
    "t2t": ("T2TViT", IMAGE, {"t2t_layers": ((7, 4), (3, 2))}),
    "nest": ("NesT", IMAGE, {"patch_size": 4, "num_hierarchies": 2, "block_repeats": (1, 1)}),
    "pit": ("PiT", LARGE, {"image_size": 64, "depth": (1, 1)}),
    "levit": ("LeViT", LARGE, {"image_size": 64, "dim": (16, 24, 32), "heads": (2, 4, 4), "mlp_mult": 2}),
    "cvt": ("CvT", LARGE, {"s1_emb_dim": 16, "s2_emb_dim": 24, "s3_emb_dim": 32, "s2_heads": 2, "s3_heads": 2}),
    "max_vit": ("MaxViT", LARGE, {"dim": 16, "dim_conv_stem": 16, "depth": (1, 1), "window_size": 2}),
    "regionvit": ("RegionViT", LARGE, {**LEVELS, "window_size": 2}),
    "vit_3d": ("ViT", VIDEO, {}),
    "vivit": ("ViViT", VIDEO, {}),
    "vit_nd_rotary": ("ViTND", VIDEO, {"ndim": 3, "input_shape": (4, 32, 32), "patch_size": (2, 8, 8)}),
}


def made(module: str, name: str, shape: tuple[int, ...], /, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Return a network and a random image."""
    return getattr(import_module(module), name)(*args, **options), randn(shape)


def vit(module: str, name: str, shape: tuple[int, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    """Return a transformer of small sizes."""
    kind = getattr(import_module(f"vit_pytorch.{module}"), name)
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in VIT.items() if key in known} | options), randn(shape)


def vit_pytorch() -> Networks:
    """Return transformers for images."""
    return {name: partial(vit, name, *rest) for name, rest in OF_VIT.items()}


def segmentation_models() -> Networks:
    """Return all decoders on one encoder, and one decoder on encoders of several kinds."""
    kinds = [
        "Unet",
        "UnetPlusPlus",
        "MAnet",
        "Linknet",
        "FPN",
        "PSPNet",
        "DeepLabV3",
        "DeepLabV3Plus",
        "UPerNet",
        "Segformer",
    ]
    encoders = [
        "resnext50_32x4d",
        "timm-res2net50_26w_4s",
        "timm-regnetx_002",
        "timm-skresnet18",
        "se_resnet50",
        "densenet121",
        "efficientnet-b0",
        "mobilenet_v2",
        "dpn68",
        "vgg11_bn",
        "mit_b0",
        "mobileone_s0",
        "tu-convnext_atto",
    ]
    pairs = [*((kind, "resnet18") for kind in kinds), *(("Unet", encoder) for encoder in encoders)]
    options = {"encoder_weights": None, "classes": 3}
    module = "segmentation_models_pytorch"
    return {f"{a} {b}": partial(made, module, a, LARGE, encoder_name=b, **options) for a, b in pairs}


def monai() -> Networks:
    """Return networks for medical images, of two and three dimensions."""
    nets, flat, solid = "monai.networks.nets", (2, 1, 64, 64), (1, 1, 32, 32, 32)
    several: dict[str, tuple[tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = {
        "UNet": (solid, (3, 1, 3, (8, 16, 24, 32), (2, 2, 2)), {"num_res_units": 2}),
        "BasicUNet": (solid, (3, 1, 2, (8, 8, 16, 24, 32, 8)), {}),
        "BasicUNetPlusPlus": (flat, (2, 1, 2, (8, 8, 16, 24, 32, 8)), {}),
        "SegResNet": (solid, (3, 8, 1, 2), {}),
        "SegResNetDS": (solid, (3, 8, 1, 2), {"norm": "batch"}),
        "DynUNet": (solid, (3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2]), {"filters": [8, 16, 24], "res_block": True}),
        "SwinUNETR": (flat, (1, 2), {"feature_size": 12, "spatial_dims": 2, "depths": (1, 1, 1, 1)}),
        "VNet": (solid, (3, 1, 2), {}),
        "AttentionUnet": (flat, (2, 1, 2, (8, 16, 24), (2, 2)), {}),
        "AHNet": ((2, 1, 128, 128), (), {"spatial_dims": 2, "upsample_mode": "bilinear"}),
        "HighResNet": ((1, 1, 16, 16, 16), (3, 1, 3), {}),
        "SEResNet50": (flat, (), {"spatial_dims": 2, "in_channels": 1, "num_classes": 3}),
        "AutoEncoder": (flat, (2, 1, 1, (8, 16, 24), (2, 2, 2)), {}),
        "VarAutoEncoder": (flat, (2, (1, 64, 64), 1, 16, (8, 16, 24), (2, 2, 2)), {}),
        "RegUNet": (flat, (2, 1, 8), {"depth": 2, "out_channels": 2}),
        "LocalNet": (flat, (2, 1, 8), {"extract_levels": (0, 1, 2), "out_channels": 2}),
    }
    return {name: partial(made, nets, name, shape, *args, **more) for name, (shape, args, more) in several.items()}


def yolo(name: str) -> tuple[Any, Any]:
    """Return a network of its configuration file, with random weights."""
    tasks = import_module("ultralytics.nn.tasks")
    kinds = {"cls": "Classification", "seg": "Segmentation", "pose": "Pose", "obb": "OBB"}
    kind = getattr(tasks, f"{kinds.get(name.partition('-')[2], 'Detection')}Model")
    return kind(f"{name}.yaml", ch=3, nc=4, verbose=False), randn(1, 3, 128, 128)


def ultralytics() -> Networks:
    """Return YOLO for several tasks."""
    plain = "yolov3-tiny yolov5n yolov6n yolov8n yolov8n-cls yolov8n-seg yolov8n-pose yolov8n-obb yolov9t yolov10n"
    return {name: partial(yolo, name) for name in f"{plain} yolo11n yolo11n-seg yolo12n yolo26n".split()}


def counterpart(name: str, task: str) -> tuple[Any, Any]:
    """Return a network of torchvision that does not classify single images."""
    options: dict[str, Any] = {"weights": None, "num_classes": 5}
    if task == "video":
        return made("torchvision.models", "get_model", (2, 3, 4, 32, 32), name, **options)
    options["weights_backbone"] = None
    if task == "detection":
        model, _ = made("torchvision.models", "get_model", (1,), name, **options)
        return model, ([torch.rand(3, 64, 80), torch.rand(3, 72, 64)],)
    return made("torchvision.models", "get_model", LARGE, name, **options)


def torchvision() -> Networks:
    """Return segmentation, video and detection; those that classify images are in a table of their own."""
    tasks = {
        "segmentation": "deeplabv3_resnet50 deeplabv3_mobilenet_v3_large fcn_resnet50 lraspp_mobilenet_v3_large",
        "video": "r3d_18 mc3_18 r2plus1d_18",
        "detection": "ssdlite320_mobilenet_v3_large",
    }
    return {name: partial(counterpart, name, task) for task, names in tasks.items() for name in names.split()}


def spandrel() -> Networks:
    """Return what makes images larger."""
    image, found = (1, 3, 16, 16), "spandrel.architectures.{}.__arch.{}".format
    several: dict[str, tuple[str, dict[str, Any]]] = {
        "RRDBNet": (found("ESRGAN", "RRDB"), {"num_filters": 16, "num_blocks": 2, "scale": 2}),
        "SRVGGNetCompact": (found("Compact", "SRVGG"), {"num_feat": 16, "num_conv": 2, "upscale": 2}),
    }
    return {name: partial(made, path, name, image, **options) for name, (path, options) in several.items()}


PACKAGES = {
    "vit-pytorch": vit_pytorch,
    "segmentation-models-pytorch": segmentation_models,
    "monai": monai,
    "ultralytics": ultralytics,
    "torchvision": torchvision,
    "spandrel": spandrel,
}
NETWORKS = {(name, key): make for name, networks in PACKAGES.items() for key, make in networks().items()}
