"""The JSON beside a stored network: the sizes of its modules and its recipe.

Anybody may have written it, so that each value is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .attributes import epsilon_problem, kept_as, size_problem
from .errors import ThinningError
from .files.checked import parse_json
from .files.regular import read_whole
from .module_sizes import new_size, sizes_of
from .names import holders
from .recipe import Recipe

FORMAT = "potstill-thinned"


def attributes_of(model: nn.Module, recipe: Recipe) -> list[list[Any]]:
    """Return [module, attribute, value] of the sizes of torch's own modules, and of those that the recipe changed."""
    entries = {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in sizes_of(module).items()
        if hasattr(module, key)
    }
    for change in recipe.attributes:
        entries[change.module, change.name] = kept_as(model.get_submodule(change.module), change.name)
    for norm in recipe.rescalings:
        entries[norm.module, norm.attribute] = norm.new
    return [[module, name, value] for (module, name), value in entries.items()]


def read_facts(path: Path) -> dict[str, Any]:
    """Return what the file says, the recipe as a `Recipe`.

    Raises:
        ThinningError: it cannot be read, is of another format, or a value is not of its kind.
    """
    try:
        facts = parse_json(read_whole(path, links=True))
    except (OSError, ValueError) as error:
        raise ThinningError(f"cannot read {path}: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("version") != 1:
        raise ThinningError(f"{path} is not a file of format {FORMAT!r}, version 1")
    entries = facts.get("attributes")
    if not isinstance(entries, list) or not all(_is_attribute(entry) for entry in entries):
        raise ThinningError(f"{path}: 'attributes' must be a list of [module, name, number or list of integers]")
    facts["recipe"] = Recipe.from_json(json.dumps(facts.get("recipe")))
    for key in ("sha256", "packed_sha256"):
        if not isinstance(facts.get(key, ""), str):
            raise ThinningError(f"{path}: '{key}' must be a text")
    facts.setdefault("inputs", None)
    if not isinstance(facts.setdefault("about", {}), dict):
        raise ThinningError(f"{path}: 'about' must be a mapping")
    return facts


def _is_attribute(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 3 or not all(isinstance(text, str) for text in entry[:2]):
        return False
    value = entry[2]
    whole = all(type(item) is int for item in (value if isinstance(value, list) else [value]))
    named = all(part.isidentifier() for part in entry[1].split(".")) and not entry[1].startswith("__")
    return named and (whole or type(value) is float)


def new_attributes(model: nn.Module, facts: Mapping[str, Any]) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield (module, attribute, value) of a dense model that becomes the stored one.

    Raises:
        ThinningError: the model has no such attribute, or it may not have this value.
    """
    for module_name, name, value in facts["attributes"]:
        module = next((module for _, module in holders(model, module_name, name)), None)
        if module is None:
            raise ThinningError(f"the files are of another model: it has no '{module_name}.{name}'")
        old = kept_as(module, name)
        if isinstance(value, float):
            problem = epsilon_problem(module, name, value)
        else:
            problem = size_problem(module, name, tuple(value) if isinstance(value, list) else value)
        if problem:
            raise ThinningError(f"the files are of another model: '{module_name}.{name}' {problem}")
        yield module, name, value if isinstance(value, float) else new_size(old, value)
