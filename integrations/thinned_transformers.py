"""Thinned models of transformers: saved beside their recipes, and loaded from folders that may be anybody's."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from potstill.models.bounded import ELEMENTS, TENSORS, at_most
from potstill.models.transformers_configs import plain_data, read_config
from potstill.thinning import Recipe, ThinningError
from potstill.thinning.dense_size import TIMES
from potstill.thinning.files.regular import must_be_file, read_whole
from potstill.thinning.files.text import printable

from .config_sizes import fitted_config

RECIPE, WEIGHTS = "recipe.json", "thinned.safetensors"
CALL = "call potstill.integrations.transformers.load_thinned on this folder"


def save_thinned(model: PreTrainedModel, recipe: Recipe, folder: str | os.PathLike[str]) -> bool:
    """Save a thinned model like `save_pretrained`; return whether `from_pretrained` can load it.

    Where all layers have lost the same, the config says so (`intermediate_size`, a number of heads), and the folder is
    as any other. Elsewhere the recipe goes along, and `load_thinned` builds the dense model, thins it and loads.

    Args:
        model: the thinned model.
        recipe: what was removed from it since it was built from its config (see `Recipe.then` for several).
        folder: where to save; what stands there under the names of its files, links too, is replaced.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="thinned.", suffix=".part", dir=path) as made:
        fits = _save(model, recipe, Path(made))
        for file in Path(made).iterdir():
            os.replace(file, path / file.name)
    if fits:  # of a model that was saved here before
        (path / RECIPE).unlink(missing_ok=True)
    return fits


def _save(model: PreTrainedModel, recipe: Recipe, path: Path) -> bool:
    config = fitted_config(model)
    if config is not None:
        dense, model.config = model.config, config
        try:
            model.save_pretrained(path)
        finally:
            model.config = dense
        return True
    model.save_pretrained(path, max_shard_size="1000TB")
    (path / "model.safetensors").rename(path / WEIGHTS)
    (path / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    # `from_pretrained` looks for the file of each weight, and names the first that is not there.
    index = {"metadata": {}, "weight_map": dict.fromkeys(model.state_dict(), CALL)}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return False


def load_thinned(folder: str | os.PathLike[str]) -> PreTrainedModel:
    """Load a model that `save_thinned` saved, in eval mode.

    Nothing is looked for on a hub, no code that the folder has or names is run, and the model is built only if the
    weights in the folder explain its size.

    Raises:
        ThinningError: the folder holds none, or its recipe does not fit the model that its config describes.
    """
    path = Path(folder)
    try:
        kind, config = _described(path)
        model = _thinned(path, kind, config) if (path / RECIPE).exists() else _fitted(path, kind, config)
    except ThinningError:
        raise
    except Exception as error:  # whatever a foreign config brings
        told = printable((str(error).strip().splitlines() or [type(error).__name__])[0][:300])
        raise ThinningError(f"{path} holds no thinned model: {told}") from error
    return model.eval()


def _described(path: Path) -> tuple[type[PreTrainedModel], PretrainedConfig]:
    """Return the class and the config of a folder's model.

    Raises:
        ThinningError: they are not among those of transformers.
    """
    found = plain_data(read_config(path / "config.json"), str(path))
    name = (found.get("architectures") or [""])[0]
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise ThinningError(f"{path}: its config names no model of transformers: {name[:80]!r}")
    config = transformers.CONFIG_MAPPING[found["model_type"]].from_dict(found)
    return kind, config


def _fitted(path: Path, kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Return a model whose config says its shapes."""
    held = sum(file.stat().st_size for file in path.glob("*.safetensors") if file.is_file())
    _must_be_explained(kind, config, held, TENSORS)
    loaded: Any = kind.from_pretrained(
        path, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False,
        output_loading_info=True,
    )  # fmt: skip
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ThinningError(f"{path}: there are no weights of {missing[:3]}")
    return model


def _thinned(path: Path, kind: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Return a dense model as its recipe leaves it, with the weights of the folder."""
    recipe = Recipe.from_json(read_whole(path / RECIPE, links=True).decode())
    weights = load_file(must_be_file(path / WEIGHTS))
    # a tied weight is there once, and a module may have it under two names
    _must_be_explained(kind, config, _bytes(weights), 2 * len(weights))
    model = kind(config)
    recipe.apply(model)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    lost = set(missing) - set(getattr(model, "_tied_weights_keys", None) or ())
    if unexpected or lost:
        raise ThinningError(f"{path}: the weights do not fit: missing {sorted(lost)[:5]}, unexpected {unexpected[:5]}")
    return model


def _must_be_explained(kind: type[PreTrainedModel], config: PretrainedConfig, held: int, tensors: int) -> None:
    """Check, before it takes memory, that so many bytes and tensors explain the network that a config describes.

    Raises:
        ModelError: they do not.
    """
    with at_most(max(ELEMENTS, TIMES * held // 4), tensors):
        kind(config)


def _bytes(weights: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in weights.values())
