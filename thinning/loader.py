"""The text of the loader that is stored beside a thinned model."""

LOADER = '''"""`load(model)` makes a dense model the thinned one stored here; needs torch and safetensors."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file

STEM = Path(__file__).with_suffix("")


def load(model):
    """Resize the dense `model` in place, fill it, and check it on the stored probe, for that on the CPU."""
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    model.cpu()
    for name, tensor in load_file(f"{STEM}.safetensors").items():
        module, _, leaf = name.rpartition(".")
        getattr(model.get_submodule(module), leaf).data = tensor.clone()  # out of the file's memory
    facts = json.loads(Path(f"{STEM}.json").read_text())
    for module, name, value in facts["attributes"]:
        old = getattr(model.get_submodule(module), name)
        setattr(model.get_submodule(module), name, type(old)(value) if isinstance(value, list) else value)
    if facts["inputs"] is not None:
        check(model.eval(), facts["inputs"], load_file(f"{STEM}.probe.safetensors"))
    return model.to(device)


def check(model, spec, probe):
    """The stored input must give the stored output."""
    args = [probe[item["tensor"]] if "tensor" in item else item["value"] for item in spec["args"]]
    kwargs = {k: probe[item["tensor"]] if "tensor" in item else item["value"] for k, item in spec["kwargs"].items()}
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        random.seed(0)
        out = model(*args, **kwargs)
    if isinstance(out, dict):
        out = list(out.values())
    out = out[0] if isinstance(out, (tuple, list)) else out
    if isinstance(out, torch.Tensor):
        gap = (out - probe["output.0"]).abs().max() / probe["output.0"].abs().max().clamp_min(1e-30)
        if not gap <= 1e-4:
            raise RuntimeError(f"the loaded model does not compute what it computed when stored: difference {gap:.1e}")
'''
