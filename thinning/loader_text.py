"""The text of the loader that is stored beside a thinned model."""

LOADER = '''"""`load(model)` makes a dense model the thinned one stored here; needs torch and safetensors."""

import copy
import json
import random
from collections import deque
from pathlib import Path

import torch
from safetensors.torch import load_file

STEM = Path(__file__).with_suffix("")


def load(model):
    """Resize the dense `model` in place, fill it, and check it on the stored probe, for that on the CPU."""
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    plain = Path(f"{STEM}.safetensors")
    weights = load_file(plain) if plain.exists() else unpacked(load_file(f"{STEM}.packed.safetensors"))
    facts = json.loads(Path(f"{STEM}.json").read_text())
    biases = facts["recipe"].get("biases", [])
    must_fit(model, {name: tensor for name, tensor in weights.items() if name not in biases})
    model.cpu()
    for name in biases:
        model.get_submodule(name.rpartition(".")[0]).bias = torch.nn.Parameter(torch.zeros(0))
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        getattr(model.get_submodule(module), leaf).data = tensor.clone()  # out of the file's memory
    modules = dict(model.named_modules())
    for module, name, value in facts["attributes"]:
        if not hasattr(modules.get(module), name.partition(".")[0]):
            raise RuntimeError(f"the files are of another model: it has no '{module}.{name}'")
        keep(modules[module], name, value)
    if facts["inputs"] is not None:
        check(model.eval(), facts["inputs"], load_file(f"{STEM}.probe.safetensors"))
    return model.eval().to(device)


def keep(module, name, value):
    """Set an attribute, or an entry of one (`config.width`): of a copy, since other modules hold the same."""
    name, *entries = name.split(".")
    old = getattr(module, name)
    new = changed(old, entries, value)
    for twin, pairs in list(vars(module).items()):
        if isinstance(old, dict) and old and type(pairs) is tuple and pairs == tuple(old.items()):
            setattr(module, twin, tuple(new.items()))
    setattr(module, name, new)


def changed(old, entries, value):
    """Return what an attribute becomes of which an entry, or an entry of that, is to be `value`."""
    if not entries:
        return like(old, value)
    entry, *further = entries
    value = changed(old[entry] if isinstance(old, dict) else getattr(old, entry), further, value)
    holder = copy.copy(old)
    if isinstance(holder, dict):
        holder[entry] = value
    if entry in getattr(holder, "__dict__", {}):
        object.__setattr__(holder, entry, value)
    return holder


def like(old, value):
    """Return a list of the file as the kind of list that the model has."""
    return getattr(type(old), "_make", type(old))(value) if isinstance(value, list) else value


def unpacked(stored):
    """Tensors of a packed file: a bit for each element, and the values of those that are not 0."""
    found = dict(stored)
    for bits in [name for name in stored if name.endswith(":bits")]:
        name = bits[:-5]
        values, shape = found.pop(f"{name}:values"), found.pop(f"{name}:shape").tolist()
        lives = (found.pop(bits)[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
        found[name] = torch.zeros(shape, dtype=values.dtype)
        found[name].view(-1)[lives.flatten()[: found[name].numel()].bool()] = values
    return found


def about():
    """Return what is known of the model: names of classes, how images are normalised."""
    return json.loads(Path(f"{STEM}.json").read_text())["about"]


def must_fit(model, weights):
    """Check that a model has the stored tensors, each with as many dimensions; of tied ones a name is enough."""
    own = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    unknown = sorted(weights.keys() - own.keys())
    held = {id(own[name]) for name in weights.keys() & own.keys()}
    missing = sorted(name for name in model.state_dict() if name in own and id(own[name]) not in held)
    if missing or unknown:
        raise RuntimeError(f"{STEM}.safetensors is of another model: missing {missing[:3]}, unexpected {unknown[:3]}")
    for name, tensor in weights.items():
        shape = own[name].shape
        if tensor.ndim != len(shape) or any(kept > dense for kept, dense in zip(tensor.shape, shape)):
            raise RuntimeError(f"'{name}' is {list(tensor.shape)} in {STEM}.safetensors, {list(shape)} in the model")


def check(model, spec, probe):
    """Check that the stored input gives the stored output."""
    args = [probe[item["tensor"]] if "tensor" in item else item["value"] for item in spec["args"]]
    kwargs = {k: probe[item["tensor"]] if "tensor" in item else item["value"] for k, item in spec["kwargs"].items()}
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        random.seed(0)
        try:
            found = tensors(model(*args, **kwargs))
        except Exception as error:
            told = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise RuntimeError(f"{STEM}.safetensors: the model does not run with it: {told}") from error
    expected = [probe[f"output.{i}"] for i in range(sum(name.startswith("output.") for name in probe))]
    if [value.shape for value in found] != [value.shape for value in expected]:
        raise RuntimeError("the loaded model does not compute what it computed when stored: difference inf")
    for value, wanted in zip(found, expected):
        value, wanted = torch.nan_to_num(value).to(torch.complex128), torch.nan_to_num(wanted).to(torch.complex128)
        gap = ((value - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)).item() if wanted.numel() else 0.0
        if not gap <= 1e-4:
            raise RuntimeError(f"the loaded model does not compute what it computed when stored: difference {gap:.1e}")


def tensors(value, seen=()):
    """All tensors and numbers in a result, in order."""
    if isinstance(value, torch.Tensor):
        return [value.to_dense() if value.layout != torch.strided else value]
    if isinstance(value, (float, complex)) or (type(value).__module__ == "numpy" and hasattr(value, "dtype")):
        kind = "fc" if isinstance(value, (float, complex)) else value.dtype.kind
        return [torch.as_tensor(value)] if kind in ("biufc" if getattr(value, "ndim", 0) else "fc") else []
    if value is None or isinstance(value, (str, bytes, int, type, torch.nn.Module)) or id(value) in seen:
        return []
    if any(kind.__name__ == "Cache" and kind.__module__.startswith("transformers.") for kind in type(value).__mro__):
        return []
    if hasattr(value, "values") and hasattr(value, "keys"):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = list(value)
    else:
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]
    return [found for part in parts for found in tensors(part, (*seen, id(value)))]
'''
