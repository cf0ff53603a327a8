"""Schedules of the same shape as Distiller's 64 public ones for classification: what each names, in its spellings.

Each row gives the file, the network, the instances and the policies, as its documentation lists them; values and
spellings (`module.` in front or inside, plain, a single text for a list, quotes, layouts) vary with the row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECTIONS = {"p": "pruners", "r": "regularizers", "q": "quantizers", "l": "lr_schedulers", "e": "extensions"}
KINDS = {"p": "pruner", "r": "regularizer", "q": "quantizer", "l": "lr_scheduler", "e": "extension"}


@dataclass
class Row:
    """One schedule: instances are (kind letter, class, arguments), policies such as `p0-2 1-11/2; l0 24-200/1`."""

    file: str
    arch: str
    instances: list[tuple[str, str, dict[str, Any]]]
    policies: str
    twice: bool = field(default=False)


def agp(*ends: tuple[float, float]) -> list[tuple[str, str, dict[str, Any]]]:
    return [("p", "AutomatedGradualPruner", {"initial_sparsity": a, "final_sparsity": b}) for a, b in ends]


def gradual(cls: str, *ends: tuple[float, float], group: str = "Filters", **more: Any) -> list[Any]:
    return [("p", cls, {"initial_sparsity": a, "final_sparsity": b, "group_type": group, **more}) for a, b in ends]


def ranked(*levels: float, group: str = "Filters", **more: Any) -> list[Any]:
    cls = "L1RankedStructureParameterPruner"
    return [("p", cls, {"desired_sparsity": level, "group_type": group, **more}) for level in levels]


def lr(cls: str, **args: Any) -> list[Any]:
    return [("l", cls, args)]


def step(size: int, gamma: float = 0.1) -> list[Any]:
    return lr("StepLR", step_size=size, gamma=gamma)


def exp(gamma: float) -> list[Any]:
    return lr("ExponentialLR", gamma=gamma)


def remover(what: str = "filters", cls: str | None = None) -> list[Any]:
    cls = cls or f"{what[:-1].capitalize()}Remover"
    return [("e", cls, {"thinning_func_str": f"remove_{what}", "arch": "resnet20_cifar", "dataset": "cifar10"})]


def lasso(group: str, criterion: str | None = "Mean_Abs") -> list[Any]:
    extra = {"threshold_criteria": criterion} if criterion else {}
    return [("r", "GroupLassoRegularizer", {"regims": [0.0008, group], **extra})]


def splicing(multiplier: float) -> list[Any]:
    args = {"low_thresh_mult": 0.9, "hi_thresh_mult": 1.1, "sensitivity_multiplier": multiplier, "sensitivity": 0.05}
    return [("p", "SplicingPruner", args)]


def quantizer(cls: str, **args: Any) -> list[Any]:
    return [("q", cls, {"bits_weights": 4, **args})]


L1_AGP = "L1RankedStructureParameterPruner_AGP"
APOZ = "ActivationAPoZRankedFilterPruner_AGP"
SENSITIVITY: list[Any] = [("p", "SensitivityPruner", {"sensitivity": 0.25})]
ALEXNET = agp((0.05, 0.91), (0.05, 0.75), (0.03, 0.62), (0.03, 0.65), (0.03, 0.43))
FILTERS = gradual(L1_AGP, (0.1, 0.5))
ROWS = gradual(L1_AGP, (0.05, 0.5), group="Rows")
UNUSED = agp((0.05, 0.87), (0.05, 0.7))
MULTI = lr("MultiStepMultiGammaLR", milestones=[80, 120, 160], gammas=[0.1, 0.1, 0.2])
SSL = "l0 45-300/1; e0 [179]; r0 0-180/1 keep_mask"
DROP = "mini_batch_pruning_frequency=16 discard_masks_at_minibatch_end mask_on_forward_only mask_gradients"
SURGERY = "keep_mask mask_on_forward_only"
OVERRIDES = {"overrides": {"conv1": {"bits_weights": None, "bits_activations": None}}}

ROWS_BY_FILE = [
    Row("agp-pruning/alexnet.schedule_agp", "alexnet", ALEXNET + exp(0.9), "p0-2 1-11/2; p3-4 0-18/2; l0 24-200/1"),
    Row("agp-pruning/mobilenet.imagenet.schedule_agp", "mobilenet", agp((0.15, 0.5), (0.15, 0.6)) + step(30),
        "p0-1 0-20/2; l0 0-100/1"),
    Row("agp-pruning/prune_resnext101_fine75", "resnext101_32x4d",
        agp((0.01, 0.75)) + lr("ReduceLROnPlateau", cooldown=3, patience=3), "p0 1-80/1; l0 70-150/1"),
    Row("agp-pruning/resnet18.schedule_agp", "resnet18", agp((0.05, 0.6), (0.05, 0.67), (0.05, 0.76)) + exp(0.9),
        "p0 0-16/2; p1-2 4-16/2; l0 13-100/1"),
    Row("agp-pruning/resnet20_filters.bn_fold.schedule_agp", "resnet20_cifar",
        FILTERS + ROWS + agp((0.05, 0.7)) + step(50) + remover(),
        "p0 0-30/2 fold_batchnorm; e0 [30]; p2 30-50/2 fold_batchnorm; p1 30-50/2; l0 0-400/1"),
    Row("agp-pruning/resnet20_filters.schedule_agp", "resnet20_cifar",
        FILTERS + ROWS + agp((0.05, 0.7)) + step(50) + remover(),
        "p0 0-30/2; e0 [30]; p1-2 30-50/2; l0 0-400/1"),
    Row("agp-pruning/resnet20_filters.schedule_agp_2", "resnet20_cifar",
        gradual(L1_AGP, (0.1, 0.4)) + agp((0.05, 0.7)) + step(50) + remover(),
        "p0 0-20/2; p1 20-40/2; e0 [22]; l0 0-400/1"),
    Row("agp-pruning/resnet20_filters.schedule_agp_3", "resnet20_cifar",
        FILTERS + ROWS + agp((0.05, 0.5), (0.05, 0.7)) + step(50) + remover(),
        "p0 0-30/2; p1-3 30-50/2; e0 [32]; l0 0-400/1"),
    Row("agp-pruning/resnet20_filters.schedule_agp_4", "resnet20_cifar",
        FILTERS + gradual(L1_AGP, (0.1, 0.5), group_dependency="Leader") + ROWS + agp((0.05, 0.7)) + step(50)
        + remover(),
        "p0-1 0-30/2; p2-3 30-50/2; e0 [32]; l0 0-400/1"),
    Row("agp-pruning/resnet50.schedule_agp.1x1x8-blocks", "resnet50",
        agp((0.05, 0.7)) + gradual(L1_AGP, (0.05, 0.7), group="Blocks", kwargs={"block_shape": [1, 8, 1, 1]})
        + exp(0.95),
        "p1 0-30/1; p0 0-30/3; l0 40-80/1"),
    *[Row(f"agp-pruning/resnet50.schedule_agp.filters{which}", "resnet50",
          UNUSED + gradual(L1_AGP, (0.05, 0.5)) + exp(0.95) + remover(), f"p2 0-30/{every}; e0 [31]; l0 40-{end}/1")
      for which, every, end in (("", 1, 80), ("_2", 1, 80), ("_3", 2, 100))],
    Row("agp-pruning/resnet50.schedule_agp.filters_with_FC", "resnet50",
        UNUSED + gradual(L1_AGP, (0.05, 0.5)) + exp(0.95) + remover(), "p2 0-30/1; p0 0-30/3; e0 [31]; l0 40-80/1"),
    Row("agp-pruning/resnet50.schedule_agp", "resnet50", agp((0.05, 0.8), (0.05, 0.8)) + exp(0.95),
        "p0 0-35/1; p1 1-35/1; l0 40-100/1"),
    Row("agp-pruning/resnet50_84.6-sparsity.schedule_agp", "resnet50", agp((0.05, 0.8), (0.05, 0.85)) + exp(0.95),
        "p0 0-35/1; p1 1-35/1; l0 40-100/1"),
    Row("agp-pruning/resnet50_pruning_for_accuracy.schedule_agp", "resnet50",
        agp((0.05, 0.6), (0.05, 0.67), (0.05, 0.76)) + exp(0.9), "p0 0-16/2; p1-2 4-16/2; l0 13-100/1"),
    Row("drop_filter/plain20_cifar_dropfilter_training", "plain20_cifar",
        gradual("BernoulliFilterPruner_AGP", (0.05, 0.5)) + step(45, 0.2),
        f"l0 30-200/1; p0 15-220/1 use_double_copies {DROP}"),
    Row("drop_filter/plain20_cifar_dropfilter_training_regularization", "plain20_cifar",
        [("p", "BernoulliFilterPruner", {"desired_sparsity": 0.1, "group_type": "Filters"}), *step(45, 0.2)],
        f"l0 30-200/1; p0 15-180/1 {DROP}"),
    Row("drop_filter/resnet20_cifar_randomlevel_training", "resnet20_cifar",
        [("p", "RandomLevelStructureParameterPruner", {"group_type": "Filters", "sparsity_range": [0.1, 0.2]}),
         *step(45)],
        f"l0 30-200/1; p0 0-300/1 use_double_copies {DROP}"),
    Row("gss/gss_channels-removal_training", "resnet20_cifar",
        [*lasso("Channels"), ("r", "GroupVarianceRegularizer", {"regims": [8e-6, "Channels"]}), *step(45),
         *remover("channels")], "l0 45-300/1; e0 [179]; r0-1 0-180/1 keep_mask"),
    Row("hybrid/alexnet.schedule_agp_2Dreg", "alexnet", ALEXNET + lasso("2D", None) + exp(0.9),
        "p0-2 1-11/2; p3-4 0-18/2; l0 24-200/1; r0 0-24/1"),
    Row("hybrid/alexnet.schedule_sensitivity_2D-reg", "alexnet", SENSITIVITY + lasso("2D", None) + exp(0.9),
        "p0 0-38/2; r0 0-38/1; l0 24-200/1"),
    Row("network_slimming/resnet20_slimming", "resnet20_cifar", [("r", "L1Regularizer", {"regims": 0.007}), *step(45)],
        "l0 45-300/1"),
    Row("network_surgery/resnet20.network_surgery", "resnet20_cifar", splicing(0.015) + step(45),
        f"p0 0-100/1 mini_batch_pruning_frequency=1 {SURGERY}; l0 0-400/1"),
    Row("network_surgery/resnet50.network_surgery", "resnet50", splicing(0.015) + step(45),
        f"p0 0-47/1 {SURGERY}; l0 0-400/1"),
    Row("network_surgery/resnet50.network_surgery2", "resnet50", splicing(0.005) + step(45),
        f"p0 0-47/1 {SURGERY}; l0 0-400/1"),
    Row("network_trimming/resnet50.filters.activation_apoz_agp", "resnet50",
        UNUSED + gradual(APOZ, (0.05, 0.5)) + exp(0.95) + remover(), "p2 1-30/1; e0 [31]; l0 40-80/1"),
    Row("network_trimming/resnet56_cifar_activation_apoz", "resnet56_cifar",
        gradual(APOZ, (0.1, 0.6), (0.1, 0.5), (0, 0.1), (0.1, 0.3)) + exp(0.95) + remover(),
        "p0-3 1-20/2; e0 [20]; l0 10-300/1"),
    Row("network_trimming/resnet56_cifar_activation_apoz_v2", "resnet56_cifar",
        gradual(APOZ, (0.1, 0.7), (0.1, 0.6), (0, 0.2), (0.1, 0.4)) + exp(0.95) + remover(),
        "p0-3 1-20/2; e0 [20]; l0 10-300/1"),
    Row("pruning_filters_for_efficient_convnets/resnet56_cifar_channel_rank", "resnet56_cifar",
        ranked(0.7, group="Channels", group_dependency="Leader") + ranked(0.6, 0.2, 0.4, group="Channels") + exp(0.95)
        + remover("channels", "StructureRemover"), "p0-3 [0]; e0 [0]; l0 10-300/1"),
    Row("pruning_filters_for_efficient_convnets/resnet56_cifar_filter_rank", "resnet56_cifar",
        ranked(0.6, 0.5, 0.1, 0.3) + exp(0.95) + remover(), "p0-3 [0]; e0 [0]; l0 10-300/1"),
    Row("pruning_filters_for_efficient_convnets/resnet56_cifar_filter_rank_v2", "resnet56_cifar",
        ranked(0.7, 0.6, 0.2, 0.4) + exp(0.95) + remover(), "p0-3 [0]; e0 [0]; l0 10-300/1"),
    Row("pruning_filters_for_efficient_convnets/vgg19.schedule_filter_rank", "vgg19",
        ranked(0.1, 0.1) + step(50) + remover(),
        "p0 [0]; e0 [0]; p1 [1]; e0 [1]; p0 [4]; e0 [4]; p1 [5]; e0 [5]"),
    Row("quantization/quant_aware_train/alexnet_bn_dorefa", "alexnet_bn",
        quantizer("DorefaQuantizer", **OVERRIDES) + lr("MultiStepLR", milestones=[60, 75], gamma=0.2),
        "q0 0-200/1; l0 0-200/1"),
    Row("quantization/quant_aware_train/preact_resnet18_imagenet_dorefa", "preact_resnet18",
        quantizer("DorefaQuantizer", **OVERRIDES) + lr("MultiStepLR", milestones=[30, 60, 90, 100], gamma=0.1),
        "q0 0-200/1; l0 0-200/1"),
    Row("quantization/quant_aware_train/preact_resnet20_cifar_pact", "preact_resnet20_cifar",
        quantizer("PACTQuantizer", act_clip_init_val=8.0, **OVERRIDES)
        + lr("MultiStepLR", milestones=[60, 120], gamma=0.1),
        "q0 0-200/1; l0 0-121/1"),
    Row("quantization/quant_aware_train/preact_resnet_cifar_dorefa", "preact_resnet20_cifar",
        quantizer("DorefaQuantizer", **OVERRIDES) + MULTI, "q0 0-200/1; l0 0-161/1"),
    Row("quantization/quant_aware_train/quant_aware_train_linear_quant", "resnet18",
        quantizer("QuantAwareTrainRangeLinearQuantizer", mode="ASYMMETRIC_UNSIGNED", ema_decay=0.999), "q0 0-300/1"),
    Row("sensitivity-pruning/alexnet.schedule_sensitivity", "alexnet", SENSITIVITY + exp(0.9),
        "p0 0-38/2; l0 24-200/1"),
    Row("sensitivity-pruning/alexnet.schedule_sensitivity_direct", "alexnet", SENSITIVITY, "p0 0-1/1"),
    Row("ssl/ssl_4D-removal_training", "resnet20_cifar", lasso("4D") + step(45), "l0 45-300/1; r0 0-180/1 keep_mask"),
    Row("ssl/ssl_channels-removal_training", "resnet20_cifar",
        lasso("Channels") + step(45) + remover("channels"), SSL, twice=True),
    Row("ssl/ssl_channels-removal_training_x1.8", "resnet20_cifar",
        lasso("Channels") + step(45) + remover("channels"), SSL),
    Row("ssl/ssl_filter-removal_training", "resnet20_cifar", lasso("Filters") + step(45) + remover(), SSL),
    Row("ssl/vgg16_cifar_ssl_channels_training", "vgg16_cifar",
        lasso("Channels") + step(45) + remover("channels"), "l0 0-300/1; e0 [0]; r0 0-180/1 keep_mask"),
]  # fmt: skip

BASELINES: list[tuple[str, str, list[Any], str]] = [
    ("auto_compression/amc/adc_vgg16_cifar_finetuning", "vgg16_cifar", step(25), "0-300"),
    ("auto_compression/plain20_fine_tune", "plain20_cifar", lr("StepLR", step_size=20), "0-100"),
    ("baseline_networks/cifar/plain20_cifar_baseline_training", "plain20_cifar",
     lr("MultiStepLR", milestones=[60, 120, 160], gamma=0.2), "0-200"),
    ("baseline_networks/cifar/preact_resnet_cifar_base_fp32", "preact_resnet20_cifar", MULTI, "0-200"),
    ("baseline_networks/cifar/resnet20_cifar_baseline_training", "resnet20_cifar", step(45), "45-200"),
    ("baseline_networks/cifar/resnet56_cifar_baseline_training", "resnet56_cifar", step(45), "35-200"),
    ("baseline_networks/cifar/vgg16_cifar_baseline_training", "vgg16_cifar", step(45), "35-200"),
    ("baseline_networks/imagenet/alexnet_bn_base_fp32", "alexnet_bn",
     lr("MultiStepLR", milestones=[60, 75], gamma=0.2), "0-200"),
    ("baseline_networks/imagenet/mobilenet_imagenet_baseline_training", "mobilenet", exp(0.98), "0-200"),
    ("baseline_networks/imagenet/preact_resnet18_imagenet_base_fp32", "preact_resnet18",
     lr("MultiStepLR", milestones=[30, 60, 90, 100], gamma=0.1), "0-200"),
    ("pruning_filters_for_efficient_convnets/resnet56_cifar_baseline_training", "resnet56_cifar", step(45), "35-200"),
    ("quantization/fp32_baselines/alexnet_bn_base_fp32", "alexnet_bn",
     lr("MultiStepLR", milestones=[60, 75], gamma=0.2), "0-200"),
    ("quantization/fp32_baselines/preact_resnet18_imagenet_base_fp32", "preact_resnet18",
     lr("MultiStepLR", milestones=[30, 60, 90, 100], gamma=0.1), "0-200"),
    ("quantization/fp32_baselines/preact_resnet_cifar_base_fp32", "preact_resnet20_cifar", MULTI, "0-200"),
    ("ssl/resnet20_cifar_baseline_training", "resnet20_cifar", step(45), "45-200"),
    ("ssl/ssl_4D-removal_finetuning", "resnet20_cifar", step(25, 0.05), "180-300"),
    ("ssl/ssl_channels-removal_finetuning", "resnet20_cifar", step(45), "0-300"),
    ("ssl/ssl_channels-removal_finetuning_x1.8", "resnet20_cifar", step(45), "0-300"),
]  # fmt: skip

ALL_ROWS = ROWS_BY_FILE + [Row(f, arch, instances, f"l0 {when}/1") for f, arch, instances, when in BASELINES]


def spell(name: str, style: int) -> str:
    """A parameter's name as wrapped networks had it: inside `features`, or in front, or (one in three) plain."""
    if name.startswith("features."):
        return name.replace("features.", "features.module.", 1)
    return name if name.startswith("classifier") or style % 3 == 2 else f"module.{name}"


def split(weights: Mapping[str, int], row: Row, style: int) -> dict[int, list[str]]:
    """The weights that each instance names: the classifier for `Rows`, a share of the convolutions for the others."""
    convolutions = [name for name, rank in weights.items() if rank == 4]
    last = [name for name, rank in weights.items() if rank == 2][-1:]
    slim = [name for name, rank in weights.items() if rank == 1 and name.endswith("bn2.weight")]
    deep = [name for name in convolutions if "conv2" in name] or convolutions[1:]
    shares = {}
    for i, (_, cls, args) in enumerate(row.instances):
        pool = deep if args.get("group_type") == "Blocks" or "Group" in cls else convolutions[1:]
        share = pool[i % 4 :: 4] or pool[:1]
        if "group_dependency" in args:  # all must have as many structures as the first
            share = [name for name in convolutions if name.startswith("layer1.")]
        names = last if args.get("group_type") == "Rows" else slim if cls == "L1Regularizer" else share
        shares[i] = [spell(name, style) for name in names]
    return shares


def write(row: Row, weights: Mapping[str, int], style: int) -> str:
    """The schedule's text, for a network whose weights have these numbers of dimensions."""
    shares = split(weights, row, style)
    lines = [f"# {row.file}", *(["version: 1"] if style % 2 else [])]
    counts = dict.fromkeys(SECTIONS, 0)
    sections: dict[str, list[str]] = {}
    for i, (letter, cls, args) in enumerate(row.instances):
        quote = "'" if style % 4 == 1 else ""
        body = [f"  {letter}{counts[letter]}:", f"    class:  {quote}{cls}{quote}"]
        counts[letter] += 1
        for key, value in args.items():
            body += _argument(key, value, shares[i], row.twice)
        if letter == "p" and "sensitivity" not in args:
            body += _weights(shares[i], style)
        sections.setdefault(letter, []).extend(body)
    for letter, body in sections.items():
        lines += ["", f"{SECTIONS[letter]}:", *body]
    return "\n".join([*lines, "", "policies:", *_policies(row.policies), ""])


def _argument(key: str, value: Any, names: list[str], twice: bool) -> list[str]:
    if key == "regims":
        entries = [f"      {name}: {_flow(value)}" for name in names]
        return ["    reg_regims:", *entries, *(entries[-2:] if twice else [])]
    if key == "sensitivity":
        return ["    sensitivities:", "      #'conv1.weight': 0.60", *(f"      '{name}': {value}" for name in names)]
    if isinstance(value, dict):
        return [f"    {key}:", *(f"      {inner}: {_flow(entry)}" for inner, entry in value.items())]
    return [f"    {key} : {_flow(value)}"]


def _weights(names: list[str], style: int) -> list[str]:
    if len(names) == 1 and style % 2:
        return [f"    weights: {names[0]}"]
    return ["    weights: [", *(f"      {name}," for name in names[:-1]), f"      {names[-1]}]", ""]


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(entry)}' for key, entry in value.items())}}}"
    return "null" if value is None else f"{value:.8f}".rstrip("0") if isinstance(value, float) else str(value)


def _policies(text: str) -> list[str]:
    lines = []
    for entry in text.split("; "):
        names, when, *args = entry.split(" ")
        letter, first, last = re.fullmatch(r"(.)(\d)(?:-(\d))?", names).groups()  # type: ignore[union-attr]
        for i in range(int(first), int(last or first) + 1):
            lines += [f"  - {KINDS[letter]}:", f"      instance_name : {letter}{i}"]
            if args:
                pairs = (arg.partition("=") for arg in args)
                lines += ["      args:", *(f"        {key}: {value or True}" for key, _, value in pairs)]
            lines += _when(when)
    return lines


def _when(when: str) -> list[str]:
    if when.startswith("["):
        return [f"    epochs: {when}", ""]
    start, end, every = re.split("[-/]", when)
    return [f"    starting_epoch: {start}", f"    ending_epoch: {end}", f"    frequency: {every}", ""]
