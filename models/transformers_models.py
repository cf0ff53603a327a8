"""Image classifiers of transformers as `transformers/FOLDER`: a folder with a config, and perhaps weights.

transformers is imported where a folder is named. Nothing is looked for on a hub and no code of the folder is run; of
the config what describes the network is taken, plain data, of which a checkpoint can build it without the folder.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .bounded import ELEMENTS, TENSORS, TooLargeError, at_most
from .info import ModelError, ModelInfo
from .transformers_configs import OTHER_KINDS, first_line, plain_data, read_config, shown

PREFIX = "transformers/"
MISSING = 'transformers is not installed: pip install "potstill[transformers]"'
USUAL_SIZE, LARGEST_SIDE, MOST_CHANNELS = 224, 1024, 1024
"""Of images."""
NOT_OF_THE_NETWORK = frozenset(
    {
        *("architectures", "transformers_version", "dtype", "torch_dtype", "torchscript"),
        *("output_attentions", "output_hidden_states", "return_dict", "use_cache"),
        *("id2label", "label2id", "num_labels", "problem_type"),
    }
)
"""Keys of a config that say where it comes from, how it is run, or what its classes are called."""


def is_transformers_name(name: str) -> bool:
    """Return whether a name asks for a network of transformers, be there such a folder or not."""
    return name.startswith(PREFIX)


def transformers_info(name: str, config: Mapping[str, Any] | None = None) -> ModelInfo:
    """Return what a network expects, from the folder that its name gives or from a config that a checkpoint kept.

    Raises:
        ModelError: transformers is not installed, or there is no config of an image classifier.
    """
    if find_spec("transformers") is None:
        raise ModelError(f"{name[:200]}: {MISSING}")
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    found = read_config(folder / "config.json") if config is None else dict(config)
    images = read_config(folder / "preprocessor_config.json", needed=False) if config is None else {}
    plain, made = plain_config(found, name)
    size = _size_of(made, images)
    channels = getattr(made, "num_channels", None) or getattr(_vision(made), "num_channels", None) or 3
    if type(channels) is not int or not (1 <= channels <= MOST_CHANNELS and max(size) <= LARGEST_SIDE):
        told = f"{shown(channels)} channels and sides of {size[0]} and {size[1]}"
        raise ModelError(f"{name}: its config is of images of {told}: {MOST_CHANNELS} and {LARGEST_SIDE} at most")
    mean, std = (_statistics(images.get(key), channels) for key in ("image_mean", "image_std"))
    classes = len(found["id2label"]) if isinstance(found.get("id2label"), dict) and found["id2label"] else 1000
    if config is None:
        made.num_labels = classes
        _must_be_explained(name, made)
    described = f"{plain['model_type']} of transformers"
    return ModelInfo(name, (channels, *size), classes, described, "transformers", mean, std, plain)


def _must_be_explained(name: str, config: Any) -> None:
    """Check that a folder's network is none of those that take any memory.

    Raises:
        ModelError: it has more than 268 million weights, and there are none of it in the folder; or cannot be built.
    """
    from transformers import AutoModelForImageClassification

    try:
        with _quiet(), at_most(max(ELEMENTS, _weights_bytes(name)), TENSORS):
            AutoModelForImageClassification.from_config(copy.deepcopy(config), trust_remote_code=False)
    except TooLargeError as error:
        raise ModelError(f"{name}: {error}, and than {ELEMENTS:,} weights: put *.safetensors beside it") from error
    except Exception as error:  # numbers that do not divide
        raise ModelError(f"{name} cannot be built: {type(error).__name__}: {first_line(error)}") from error


def plain_config(found: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Any]:
    """Return what of a config describes the network, and the config that it makes.

    Raises:
        ModelError: it is of no image classifier, or holds something else than plain data.
    """
    from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    kind = found.get("model_type")
    if not isinstance(kind, str) or kind in OTHER_KINDS or kind not in CONFIG_MAPPING:
        raise ModelError(f"{name}: its config is of {shown(kind)}, which transformers does not build here")
    cls = CONFIG_MAPPING[kind]
    if cls not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ModelError(f"{name}: its config is of {shown(kind)}, which is no image classifier")
    known = cls().to_dict().keys() - NOT_OF_THE_NETWORK
    plain = plain_data({key: found[key] for key in found if key in known}, name, NOT_OF_THE_NETWORK)
    try:
        return {**plain, "model_type": kind}, cls.from_dict(plain)
    except Exception as error:  # whatever a foreign config brings
        raise ModelError(f"{name}: its config cannot be used: {first_line(error)}") from error


def transformers_model(info: ModelInfo, num_classes: int, pretrained: bool) -> nn.Module:
    """Build an image classifier, in training mode; with `pretrained` it has the folder's weights, and a fresh head.

    Raises:
        ModelError: the config does not build one, or there are no weights in the folder that fit it.
    """
    from transformers import AutoModelForImageClassification

    _, config = plain_config(info.config or {}, info.name)
    _resize(config, info.input_shape[1:])
    config.num_labels = num_classes
    try:
        with _quiet():
            if pretrained:
                return _with_weights(info, config)
            model: nn.Module = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # numbers that do not divide, files that are damaged
        raise ModelError(f"{info.name} cannot be built: {type(error).__name__}: {first_line(error)}") from error
    return model.train()


def has_weights(name: str) -> bool:
    """Return whether the folder has weights that can be loaded."""
    return _weights_bytes(name) > 0


def _weights_bytes(name: str) -> int:
    """Return how large the weights in the folder are together, which no element of them can be less than a byte of."""
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    return sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())


def _with_weights(info: ModelInfo, config: Any) -> nn.Module:
    from transformers import AutoModelForImageClassification

    folder = Path(info.name.removeprefix(PREFIX)).expanduser()
    if not has_weights(info.name):
        pickled = any(folder.glob("*.bin"))
        why = "pickled ones, which could run code: convert them to safetensors" if pickled else "none (*.safetensors)"
        raise ModelError(f"{folder} has no weights to begin with: there are {why}, or leave out pretrained")
    model, loaded = AutoModelForImageClassification.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    fresh = {*loaded["missing_keys"], *(key[0] for key in loaded["mismatched_keys"])}
    lost = sorted(fresh - _head(model, config))
    if lost:
        raise ModelError(
            f"the weights in {folder} do not fit its config at images of {'x'.join(map(str, info.input_shape))}: "
            f"{', '.join(lost[:3])} would be random"
        )
    trained: nn.Module = model.train()
    return trained


def _head(model: nn.Module, config: Any) -> set[str]:
    """Return the names of the parameters whose shape follows the number of classes."""
    from transformers import AutoModelForImageClassification

    more = copy.deepcopy(config)
    more.num_labels = config.num_labels + 1
    with torch.device("meta"):
        other = AutoModelForImageClassification.from_config(more, trust_remote_code=False).state_dict()
    return {name for name, tensor in model.state_dict().items() if other[name].shape != tensor.shape}


def _resize(config: Any, size: tuple[int, ...]) -> None:
    """Let the config be of images of this size, where it says one."""
    for part in (config, _vision(config)):
        now = getattr(part, "image_size", None)
        if isinstance(now, (list, tuple)):
            part.image_size = list(size)
        elif now is not None:
            if size[0] != size[1]:
                raise ModelError(f"its config takes square images, not {size[0]}x{size[1]}")
            part.image_size = size[0]


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", None)


def _size_of(config: Any, images: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width: those of the config, else of the images' preprocessing, else 224."""
    size = getattr(config, "image_size", None) or getattr(_vision(config), "image_size", None)
    if size is None:
        size = images.get("crop_size") or images.get("size")
    if isinstance(size, Mapping):
        size = [size.get("height") or size.get("shortest_edge"), size.get("width") or size.get("shortest_edge")]
    sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
    whole = [side for side in sides if type(side) is int and side > 0]
    return (whole[0], whole[1]) if len(whole) == len(sides) == 2 else (USUAL_SIZE, USUAL_SIZE)


def _statistics(values: Any, channels: int) -> tuple[float, ...] | None:
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    return tuple(map(float, values)) if numbers and len(values) == channels else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what transformers has to say of weights: it is checked, and told in one line."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
