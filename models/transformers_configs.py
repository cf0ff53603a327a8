"""Configs of transformers: plain data that anybody may have written, of which nothing runs code or fetches any."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .info import ModelError

LARGEST_FILE = 10 * 2**20
LARGEST_NUMBER = 2**24
"""Above any size of a network: lists that are made of such a number before a layer is take some 500 MB."""
ANY_NUMBER = "theta"
"""What frequencies of rotary embeddings are called, which are no sizes."""
RUNS_CODE = frozenset({"auto_map", "attn_implementation", "experts_implementation", "quantization_config"})
"""Keys that name code: of the folder, or on a hub (kernels), or of another library."""
OTHER_KINDS = frozenset({"timm_wrapper", "timm_backbone"})
"""Kinds whose configs name code elsewhere: timm's are `timm/NAME`."""


def read_config(path: Path, needed: bool = True) -> dict[str, Any]:
    """Return the mapping that a file of JSON holds; an empty one where none is there and none is needed.

    Raises:
        ModelError: it is missing, too large, or something else.
    """
    if not needed and not path.is_file():
        return {}
    if not path.is_file():
        raise ModelError(f"{path}: no such file; a folder of transformers has one")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError("too large for a config")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds no mapping")
    return found


def plain_data(found: Mapping[str, Any], name: str, without: Iterable[str] = RUNS_CODE) -> dict[str, Any]:
    """Return what a config says, of parts of the network too, without the keys that are left out.

    Raises:
        ModelError: it holds something else than plain data, numbers that are no sizes, or a kind that names code.
    """
    left_out = {*without, *RUNS_CODE}

    def taken(value: Any, key: str, depth: int) -> Any:
        if isinstance(value, dict) and depth < 8 and all(isinstance(one, str) for one in value):
            kept = [one for one in value if one not in left_out and not one.startswith("_")]
            return {one: taken(value[one], one, depth + 1) for one in kept}
        if isinstance(value, (list, tuple)) and depth < 8:
            return [taken(item, key, depth + 1) for item in value]
        if type(value) is int and abs(value) > LARGEST_NUMBER and not key.endswith(ANY_NUMBER):
            raise ModelError(f"{name}: its config has {shown(key)} of {shown(value)}: {LARGEST_NUMBER:,} at most")
        if key == "model_type" and (not isinstance(value, str) or value in OTHER_KINDS):
            raise ModelError(f"{name}: its config is of {shown(value)}, which transformers does not build here")
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise ModelError(f"{name}: its config holds something else than numbers, texts and lists of them")
        return value

    plain: dict[str, Any] = taken(dict(found), "", 0)
    return plain


def shown(value: Any) -> str:
    """Return a value in a few letters."""
    return f"a number of {value.bit_length()} bits" if type(value) is int and abs(value) >= 2**64 else ascii(value)[:60]


def first_line(error: Exception) -> str:
    """Return what an error says, in a line that is not too long."""
    return (str(error).strip().splitlines() or [""])[0][:200]
