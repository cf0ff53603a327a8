"""What `thin` takes, with its proof, beside Torch-Pruning, which proves nothing: processor seconds, in turns.

    pip install torch-pruning
    python benchmarks/thinning_peer.py resnet50 googlenet convnext_tiny swin_t [--rounds 5] [--limit 120]

Both remove 30 % of the channels of a torchvision model of random weights at 224 x 224 pixels, on one thread. Ours has
its dead channels zeroed before; the time is all of `thin(model, image)`: trace, plan, removal and the comparison of the
outputs. Torch-Pruning's is that of its dependency graph, its pruner by magnitude and the step. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision
from tabulate import tabulate
from torch import Tensor, nn

from potstill.thinning import thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels


def build(name: str) -> nn.Module:
    """Return a torchvision model with random weights."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, **options).eval()


def ours(name: str, image: Tensor) -> Callable[[], object]:
    """Return what thins a network with dead channels."""
    model = make_sensitive(build(name), image)
    zero_channels(model, trace(model, image))
    return lambda: thin(model, image)


def peer(name: str, image: Tensor) -> Callable[[], object]:
    """Return what removes as large a share of the channels by Torch-Pruning."""
    import torch_pruning

    model = build(name)
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1000]

    def prune() -> None:
        importance = torch_pruning.importance.MagnitudeImportance()
        torch_pruning.pruner.MagnitudePruner(model, image, importance, pruning_ratio=0.3, ignored_layers=heads).step()

    return prune


class Late(BaseException):
    """Not an `Exception`, which what is called might handle."""


def seconds(work: Callable[[], object], limit: int = 0) -> float:
    """Return the processor seconds of a call; infinity where it has not ended after so many by the clock (0: any)."""

    def stop(*_: Any) -> None:
        raise Late

    gc.collect()  # a full collection looks at all that is imported: neither side shall meet one by chance
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    start = time.process_time()
    try:
        work()
        return time.process_time() - start
    except Late:
        return float("inf")
    finally:
        signal.alarm(0)


def row(name: str, rounds: int, limit: int) -> tuple[object, ...]:
    """Return a row of the table."""
    image = torch.randn(1, 3, 224, 224)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(seconds(ours(name, image)))
        if float("inf") not in times[1]:
            times[1].append(seconds(peer(name, image), limit))
    mine, theirs = map(statistics.median, times)
    late = theirs == float("inf")
    return (
        name,
        f"{mine:.3f}",
        f"more than {limit}" if late else f"{theirs:.3f}",
        "-" if late else f"{mine / theirs:.2f}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet50", "googlenet", "convnext_tiny", "mobilenet_v2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=120, help="seconds by the clock after which the peer is ended")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for work in (ours("resnet18", torch.randn(1, 3, 64, 64)), peer("resnet18", torch.randn(1, 3, 64, 64))):
        work()  # what is loaded or compiled at the first call
    rows = [row(name, options.rounds, options.limit) for name in options.models]
    print(tabulate(rows, ["model", "thin s", "Torch-Pruning s", "ratio"], tablefmt="github"))


if __name__ == "__main__":
    main()
