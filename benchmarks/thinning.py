"""Thinning of torchvision's classification models: seconds, sizes and the difference of the outputs.

    python benchmarks/thinning.py resnet50 googlenet      some models
    python benchmarks/thinning.py --all                   all 80
    python benchmarks/thinning.py --all --markdown docs/thinning_models.md
    python benchmarks/thinning.py --all --device cuda

30 % of the removable channels of every coupled class are zeroed at their producers and then removed. Seconds: trace,
plan and apply are the work, verify is the equality check (two forward passes on two inputs). They are processor seconds
on one thread, which another job on the machine does not change much.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from potstill.thinning import ThinningError, load, save, thin, trace
from potstill.thinning.apply import Transaction
from potstill.thinning.dead import find_dead
from potstill.thinning.difference import relative_difference
from potstill.thinning.plan import make_recipe
from potstill.thinning.running.copies import named_tensors
from potstill.thinning.running.outputs import outputs, randomized
from potstill.thinning.testing import make_sensitive, zero_channels
from potstill.thinning.trace import analyse

HEAD = (
    "model",
    "trace",
    "plan",
    "apply",
    "verify",
    "parameters",
    "",
    "MACs",
    "",
    "difference",
    "loads",
    "trains",
)


def build(name: str) -> nn.Module:
    """Return a torchvision model with random weights."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, **options)


def size_of(name: str) -> int:
    """Return the side of the images that the model is made for here."""
    return 299 if name == "inception_v3" else 224


def trains(model: nn.Module, images: Tensor) -> bool:
    """Return whether one training step runs and reaches every parameter that asks for a gradient."""
    model.train()
    out = model(images)
    parts = [out] if isinstance(out, Tensor) else list(out)
    sum(part.square().mean() for part in parts if part is not None).backward()
    reached = all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    model.zero_grad()
    model.eval()
    return reached


def loads(name: str, model: nn.Module, recipe: Any, device: torch.device) -> bool:
    """Return whether a saved thinned model comes back from the bare class with the same outputs, as its probe tells."""
    with tempfile.TemporaryDirectory() as folder:
        load(build(name).to(device), save(model, recipe, Path(folder) / "thinned.safetensors"))
    return True


def measure(name: str, device: torch.device) -> tuple[str, ...]:
    """Return one row of the table."""
    side = size_of(name)
    torch.manual_seed(0)
    images = torch.randn(2, 3, side, side).to(device)
    model = make_sensitive(build(name).to(device), images)
    zero_channels(model, trace(model, images[:1]))
    weights = named_tensors(model)
    gc.collect()  # a full collection looks at all that is imported: neither side shall meet one by chance
    clock = [time.process_time()]
    found = analyse(model, images[:1], weights)
    clock.append(time.process_time())
    recipe, _ = make_recipe(found, find_dead(found, weights), weights, model)
    clock.append(time.process_time())
    batches = [randomized(images[:1]), images]
    before = outputs(model, batches)
    clock.append(time.process_time())
    transaction = Transaction()
    transaction.apply(recipe, model, None, None)
    clock.append(time.process_time())
    gap = relative_difference(before, outputs(model, batches))
    clock.append(time.process_time())
    transaction.roll_back()
    done = thin(model, images[:1], validation_batch=images)
    a, b, c, d, e = (later - earlier for earlier, later in itertools.pairwise(clock))
    return (
        name,
        *(f"{seconds:.2f}" for seconds in (a, b, d, c + e)),
        f"{done.parameters[0] / 1e6:.2f} M",
        f"{done.parameters[1] / 1e6:.2f} M",
        f"{done.macs[0] / 1e9:.3f} G",
        f"{done.macs[1] / 1e9:.3f} G",
        f"{max(gap, done.max_relative_difference):.1e}",
        "yes" if loads(name, model, done, device) else "no",
        "yes" if trains(copy.deepcopy(model), images) else "partly",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status is the number of models that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet50", "googlenet", "mobilenet_v2"])
    parser.add_argument("--all", action="store_true", help="all classification models of torchvision")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="of model and images")
    options = parser.parse_args(arguments)
    names = torchvision.models.list_models(torchvision.models) if options.all else options.models
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    failed = 0
    torch.set_num_threads(1)
    sys.stdout.write("\n".join(lines) + "\n")
    for name in names:
        try:
            row = measure(name, options.device)
        except (ThinningError, RuntimeError) as error:
            failed += 1
            row = (name, f"{type(error).__name__}: {error}")
        lines.append("| " + " | ".join(row) + " |")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
