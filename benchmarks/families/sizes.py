"""Configurations of transformers made small."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from transformers import PreTrainedConfig

from families.names import HEADS, LAYERS, SIZES_BY_NAME, VOCABULARY, WIDTH
from families.own import BACKBONE, OWN, ROPE, SECTIONS

DEPTHS = {name for name, size in SIZES_BY_NAME.items() if size == LAYERS and re.search("layer|depth", name)} | {
    "depths"
}
WIDTHS = re.compile(
    r"(size|sizes|dim|dims|channels?|width|rank|groups|filters|latents|d_model|d_ff|d_inner|d_kv|pos_feats)($|_)|hidden"
)
NO_WIDTHS = re.compile(r"vocab|image|img|patch|window|kernel|position|chunk|codebook_size|bucket|block_size|num_hidden")
"""Of the names of whole numbers those that are widths; all of them get smaller in proportion where one alone cannot."""
SPECIAL = (
    "pad_token_id bos_token_id eos_token_id decoder_start_token_id sep_token_id cls_token_id audio_pad_token_id"
    " blank_token_id"
)


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
    ways = [named, fields_named, filled, *(partial(in_proportion, divisor=one) for one in (16, 8, 4))]
    if sum(1 for _ in parts_with_widths(plain)) > 1:  # they have to match
        ways.insert(0, partial(in_proportion, divisor=8))
    for sizes_of in ways:
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


def parts_with_widths(plain: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """Yield the parts of a configuration that list the widths of stages, the whole among them."""
    lists = [value for name, value in vars(plain).items() if is_sizes(value) and WIDTHS.search(name)]
    if any(min(widths) >= WIDTH for widths in lists):
        yield plain
    for part in (getattr(plain, name, None) for name in type(plain).sub_configs):
        yield from parts_with_widths(part) if isinstance(part, PreTrainedConfig) else ()


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
