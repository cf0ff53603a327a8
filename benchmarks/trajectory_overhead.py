"""What `--trajectory` costs at its default: records and writing of the file, against plain training steps.

The step is the cheapest there can be (data in memory, no scheduler, no validation), so the share is an upper bound.
Writing counts once an epoch, as a run does it, with the whole file of a run of five epochs.

    python benchmarks/trajectory_overhead.py [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from potstill.command.monitors.trajectory import EVERY, Trajectory
from potstill.models import create_model

CASES = [("mlp", (1, 28, 28), 256, 235), ("simplenet_cifar", (3, 32, 32), 64, 782)]
"""Network, input shape, batch size, steps of an epoch of MNIST or CIFAR-10."""
EPOCHS = 5


def seconds(act: Callable[[], object], times: int) -> float:
    """Return the median processor time of a call: other work on the machine does not count."""
    found = []
    for _ in range(times):
        start = time.process_time()
        act()
        found.append(time.process_time() - start)
    return statistics.median(found)


def measure(name: str, shape: tuple[int, ...], batch: int, steps: int) -> str:
    """Return one case as a line of text."""
    model = create_model(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(batch, *shape), torch.randint(10, (batch,))
    trajectory = Trajectory(model, ["*"])

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    with tempfile.TemporaryDirectory() as folder:

        def write() -> None:
            trajectory.record(0)
            trajectory.write(Path(folder))

        step_time, record_time = seconds(step, 100), seconds(lambda: trajectory.record(0), EPOCHS * steps // EVERY)
        write_time = seconds(write, 11)
    share = (record_time * (steps // EVERY) + write_time) / (step_time * steps)
    return (
        f"{name}, batch {batch}: step {1e3 * step_time:.2f} ms, record {1e6 * record_time:.0f} us, "
        f"write {1e3 * write_time:.1f} ms an epoch: {100 * share:.2f} % of training"
    )


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description="What --trajectory costs.")
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for case in CASES:
        print(measure(*case))


if __name__ == "__main__":
    main()
