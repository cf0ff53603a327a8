"""Thinned models on disk: weights as safetensors, sizes and recipe as JSON, a probe, a loader of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .apply import Transaction
from .difference import relative_difference
from .errors import ThinningError
from .files.atomic import write_atomically
from .files.regular import must_be_file
from .files.text import is_text, printable
from .history import must_lead_to
from .loader_text import LOADER
from .module_sizes import sizes_of
from .names import spelling, unwrapped
from .new_biases import layer_without, outputs_of
from .odd_widths import fit_layouts
from .packed import pack_zeros, unpack_zeros
from .recipe import Recipe, whole_recipe
from .running.copies import aliases_of, named_tensors
from .running.default_device import on_cpu
from .running.input_spec import draw, pack, unpack
from .running.inputs import to
from .running.outputs import outputs
from .store_json import FORMAT, attributes_of, new_attributes, read_facts

PACKED = ".packed.safetensors"
WORTH = 0.9
"""A packed file is written where it has at most this share of the plain one's bytes."""
logger = logging.getLogger(__name__)


@on_cpu
def save(
    model: nn.Module,
    recipe: Recipe,
    path: str | Path,
    example_inputs: Any = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a thinned model so that it opens anywhere; return the path of the weights.

    `path` names the weights, `<stem>.safetensors`; beside them go `<stem>.json` (sizes and recipe),
    `<stem>.probe.safetensors` (an input and what the model makes of it) and `<stem>.py`, a loader for machines without
    Potstill. Where many weights are 0, `<stem>.packed.safetensors` holds the same in as few bytes as its content needs,
    and may be given away in their place. The probe's input is random, of the shapes that the model was thinned with,
    unless `example_inputs` is given. Where the model was thinned several times, the last recipe stands for all (of a
    copy that was made between them give `first.then(second)`). `about` is what else is worth knowing (names of classes,
    how images are normalised): plain data, kept in the JSON for `read_about`.
    """
    weights = Path(path).with_suffix(".safetensors")
    weights.parent.mkdir(parents=True, exist_ok=True)
    model = unwrapped(model)
    recipe = whole_recipe(model, recipe).named_for(model)
    inputs = example_inputs if example_inputs is not None else _drawn(model, recipe)
    facts = {
        "format": FORMAT,
        "version": 1,
        "model": recipe.model,
        "attributes": attributes_of(model, recipe),
        "inputs": None,
        "recipe": json.loads(recipe.to_json()),
        "about": dict(about or {}),
    }
    if inputs is not None:
        probe, facts["inputs"] = pack(inputs)
        results = outputs(model, [to(inputs, _device(model))])[0]
        probe |= {f"output.{i}": tensor.cpu().contiguous() for i, tensor in enumerate(results)}
        write_atomically(_beside(weights, ".probe.safetensors"), to_bytes(probe))
    tensors = _tensors(model, recipe)
    packed, content, small = _beside(weights, PACKED), to_bytes(tensors), to_bytes(pack_zeros(tensors))
    write_atomically(weights, content)
    # Ties the JSON to its weights: a crash between the two writes of a later save leaves a pair that does not fit.
    facts["sha256"] = _digest(weights)
    if len(small) < WORTH * len(content):
        write_atomically(packed, small)
        facts["packed_sha256"] = _digest(packed)
    else:
        packed.unlink(missing_ok=True)  # one of an earlier save
    write_atomically(_beside(weights, ".json"), json.dumps(facts, indent=1).encode())
    write_atomically(_beside(weights, ".py"), LOADER.encode())
    return weights


@on_cpu
def load(dense_model: nn.Module, path: str | Path, tolerance: float = 1e-4) -> nn.Module:
    """Make a dense model (torchvision's class or the user's own) the thinned one of `save`, in place; return it.

    It ends in eval mode, as the loader beside the weights leaves it. Where `<stem>.safetensors` is not there,
    `<stem>.packed.safetensors` is read.

    Nothing in the files is executed. The stored probe must give the stored output again, up to `tolerance` times the
    largest output. Raises `ThinningError` if a file is damaged or belongs to another model.
    """
    weights, plain = _chosen(Path(path))
    model = unwrapped(dense_model)
    facts = read_facts(_beside(plain, ".json"))
    recipe = facts["recipe"].named_for(model)
    modes = {module: module.training for module in model.modules()}
    with Transaction() as transaction:
        for name in recipe.biases:
            layer = layer_without(model, name)
            transaction.bias(layer, outputs_of(layer, layer.weight.shape))
        stored = _stored(model, weights, packed=weights != plain)
        if facts.get("sha256" if weights == plain else "packed_sha256", _digest(weights)) != _digest(weights):
            raise ThinningError(f"{weights} is damaged, or of another network than the {plain.stem}.json beside it")
        must_lead_to(model, stored, [recipe])
        own = named_tensors(model)
        try:
            _become(model, facts, {own[name]: tensor for name, tensor in stored.items()}, transaction)
            if facts["inputs"] is not None:
                _prove(model, facts["inputs"], _read(_beside(plain, ".probe.safetensors")), tolerance)
        except ThinningError:
            raise
        except Exception as error:  # whatever the model's code says to sizes that it was never meant for
            told = printable((str(error).splitlines() or [""])[0])
            raise ThinningError(f"{weights}: the model does not run with it: {type(error).__name__}: {told}") from error
        finally:
            for module, mode in modes.items():
                module.training = mode
        transaction.commit()
    fit_layouts(model)
    return dense_model.eval()


def _stored(model: nn.Module, weights: Path, packed: bool) -> dict[str, Tensor]:
    """Return the stored tensors by the names of a dense model, whose own they have to be, none of them larger."""
    own, read = named_tensors(model), _read(weights)
    spell = spelling(own)
    if packed:
        read = unpack_zeros(read, lambda name: own[spell(name)].numel() if spell(name) in own else 0)
    stored = {spell(name): tensor for name, tensor in read.items()}
    missing = sorted(model.state_dict().keys() - stored.keys() - _tied(model))
    unknown = sorted(stored.keys() - own.keys())
    if missing or unknown:
        raise ThinningError(f"{weights} is of another model: missing {missing[:3]}, unexpected {unknown[:3]}")
    for name, tensor in stored.items():
        if tensor.ndim != own[name].ndim or any(a > b for a, b in zip(tensor.shape, own[name].shape, strict=True)):
            shapes = f"{list(tensor.shape)} in {weights}, {list(own[name].shape)} in the model"
            raise ThinningError(f"'{name}' is {shapes}")
    return stored


def read_about(path: str | Path) -> dict[str, Any]:
    """Return what `save` was told of a thinned model beside it, as plain data that anybody may have written.

    Raises `ThinningError` if the file beside the weights is damaged.
    """
    facts: dict[str, Any] = read_facts(_beside(_chosen(Path(path))[1], ".json"))["about"]
    return facts


def _become(
    model: nn.Module, facts: Mapping[str, Any], stored: Mapping[Tensor, Tensor], transaction: Transaction
) -> None:
    """Give a dense model the sizes and values of the files."""
    for module, name, value in new_attributes(model, facts):
        transaction.attribute(module, name, value)
    for own, tensor in stored.items():
        # memory of its own: in the file's, tensors lie at odd addresses, where some kernels sum in another order
        transaction.fill(own, tensor.clone())
    for path, module in model.named_modules():
        for name, value in sizes_of(module).items():
            if getattr(module, name, value) != value:
                raise ThinningError(f"'{path}.{name}' is {getattr(module, name)}, its weights say {value}")


def _drawn(model: nn.Module, recipe: Recipe) -> Any:
    """Return inputs for the probe; None, with a warning, where the model does not run on random ones."""
    inputs = draw(recipe.inputs)
    try:
        if inputs is not None:
            inputs = to(inputs, _device(model))
            outputs(model, [inputs])
    except Exception as error:  # whatever a model's code says against random inputs
        logger.warning(
            "the model is stored without a probe, since it does not run on random inputs (%s: %s): give example_inputs",
            type(error).__name__,
            error,
        )
        return None
    return inputs


def _chosen(path: Path) -> tuple[Path, Path]:
    """Return the file of weights to read, and the one that the other files are named after."""
    given = path.with_suffix(".safetensors")
    plain = given.with_name(given.name.removesuffix(PACKED) + ".safetensors") if given.name.endswith(PACKED) else given
    packed = _beside(plain, PACKED)
    return (given if given.exists() or not packed.exists() else packed), plain


def _beside(weights: Path, suffix: str) -> Path:
    return weights.with_name(weights.stem + suffix)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):  # not whole: it may be larger than the memory
            digest.update(block)
    return digest.hexdigest()


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def _tensors(model: nn.Module, recipe: Recipe) -> dict[str, Tensor]:
    """Return each tensor of the state dict once, and the changed buffers that are not in it."""
    state = model.state_dict()
    named = named_tensors(model)
    # Buffers that are not persistent are in no state dict, but where they shrank the dense class would make them too
    # large.
    wanted = {name for name in named if name in state} | {change.name for change in recipe.tensors}
    return {name: _dense(named[name]).detach().cpu().contiguous().clone() for name in sorted(wanted)}


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _tied(model: nn.Module) -> set[str]:
    return set(aliases_of(model)) | {
        name for name, value in model.state_dict().items() if not isinstance(value, Tensor)
    }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        file = must_be_file(path)
        # safetensors maps a file whose name is UTF-8 into memory; folders of other names are read whole.
        return load_file(file) if is_text(file) else from_bytes(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ThinningError(f"cannot read {path}: {error}") from error


def _prove(model: nn.Module, spec: Any, probe: Mapping[str, Tensor], tolerance: float) -> None:
    results = [tensor.cpu() for tensor in outputs(model, [to(unpack(probe, spec), _device(model))])[0]]
    expected = [probe[f"output.{i}"] for i in range(sum(name.startswith("output.") for name in probe))]
    gap = relative_difference([expected], [results])
    if not gap <= tolerance:
        raise ThinningError(f"the loaded model does not compute what it computed when stored: difference {gap:.1e}")
