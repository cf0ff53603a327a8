"""The memory that thinning needs beside the model, as a multiple of the model's weights.

    python benchmarks/thinning_memory.py [resnet50 vit_b_16 ...]

The resident memory of the process is read from Linux's /proc every 5 ms while `thin` traces, plans, applies, verifies
(two forward passes for each of two inputs); 30 % of the removable channels are dead.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

import torch
import torchvision

from potstill.thinning import thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels

MODELS = ("resnet50", "vit_b_16", "vgg16", "regnet_y_128gf")


class Watch(threading.Thread):
    """Remembers the largest resident memory, in bytes, from `start` to `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.base = self.peak = resident()
        self._over = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self._over.wait(0.005):
            self.peak = max(self.peak, resident())

    def stop(self) -> int:
        """Return the memory beyond that of the start."""
        self._over.set()
        self.join()
        return self.peak - self.base


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def measure(name: str) -> str:
    """Return a line about one model."""
    model, x = torchvision.models.get_model(name).eval(), torch.randn(1, 3, 224, 224)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    make_sensitive(model, torch.randn(2, 3, 224, 224))  # heads of zeros (ViT, DenseNet) give outputs of zeros
    zero_channels(model, trace(model, x), 0.3)
    with torch.no_grad():
        model(x)  # what a forward pass needs once in a process is not thinning's
    watch = Watch()
    watch.start()
    thin(model, x, tolerance=1.0)  # random statistics say nothing about exactness: benchmarks/thinning.py does that
    extra = watch.stop()
    return f"{name:16} weights {weights / 2**20:6.0f} MiB, extra {extra / 2**20:6.0f} MiB: {extra / weights:.2f}x"


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    for name in parser.parse_args(arguments).models:
        print(measure(name), flush=True)


if __name__ == "__main__":
    main()
