"""Several processes: what a scheduler costs a step of DistributedDataParallel, and what it sends.

`python benchmarks/ranks.py` prints two tables: the ratio of a step with a scheduler to one without, for a network of
one process and for one that two train, and messages and bytes by policy, per step and per epoch. `--processes 4` takes
other numbers, `--steps 40` more steps, `--steps 0` only counts.

The four kinds of steps take turns in the same processes, and ratios are medians over these turns: what else the machine
does is the same for all four.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from potstill.compression import dict_config
from potstill.models import create_model

CONVOLUTIONS, EPOCH = ["layer*.conv1.weight"], 10
BATCH, SMALL = 32, 8  # what is sent does not depend on the batch
ALWAYS = {"starting_epoch": 0, "ending_epoch": 100}


def schedule(*parts: tuple[str, str, dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """Return a schedule of (section, class, arguments, times)."""
    found: dict[str, Any] = {"version": 1, "policies": []}
    for number, (section, name, args, when) in enumerate(parts):
        found.setdefault(section, {})[f"p{number}"] = {"class": name, **args}
        found["policies"].append({section.removesuffix("s"): {"instance_name": f"p{number}"}, **when})
    return found


def of(name: str, when: dict[str, Any] = ALWAYS, **args: Any) -> dict[str, Any]:
    """Return a schedule of one class."""
    section = "regularizers" if name.endswith("Regularizer") else "pruners"
    return schedule((section, name, args, when))


RISING = {"initial_sparsity": 0.1, "final_sparsity": 0.6, "weights": CONVOLUTIONS}
AGP = ("pruners", "AutomatedGradualPruner", RISING, ALWAYS)
L1 = ("regularizers", "L1Regularizer", {"reg_regims": {"layer*.conv2.weight": 1e-5}}, ALWAYS)
LASSO = ("regularizers", "GroupLassoRegularizer", {"reg_regims": {"layer*.conv1.weight": [1e-4, "Filters"]}}, ALWAYS)
TIMED = {
    "AGP + L1 + group lasso": schedule(AGP, L1, LASSO),
    "gates with a target": of("L0Regularizer", weights=CONVOLUTIONS, target_sparsity=0.3),
}
EACH = {"epochs": [1, 2]}
COUNTED = {
    "AGP of elements": of("AutomatedGradualPruner", **RISING),
    "L1 filters, AGP": of("L1RankedStructureParameterPruner_AGP", **RISING),
    "activations (APoZ)": of("ActivationAPoZRankedFilterPruner", EACH, weights=CONVOLUTIONS, desired_sparsity=0.5),
    "gradients": of("GradientRankedFilterPruner", EACH, weights=CONVOLUTIONS, desired_sparsity=0.5),
    "RigL": of("RigLPruner", weights=CONVOLUTIONS, sparsity=0.5),
    "reconstruction": of("FMReconstructionChannelPruner", {"epochs": [1]}, weights=CONVOLUTIONS, desired_sparsity=0.5),
    "L1 and group lasso": schedule(L1, LASSO),
    "gates": TIMED["gates with a target"],
}


class Sent:
    """Counts messages and bytes of the library's own collectives."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        for name in ("all_reduce", "broadcast", "all_gather"):
            setattr(dist, name, self.counting(getattr(dist, name)))
            setattr(dist.distributed_c10d, name, getattr(dist, name))

    def counting(self, function: Any) -> Any:
        def counted(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            sent = args[0] if isinstance(tensor, list) else tensor
            self.counts["messages"] += 1
            self.counts["bytes"] += sent.numel() * sent.element_size()
            return function(tensor, *args, **kwargs)

        return counted


class Loop:
    """A network in training, with a scheduler or without, by all processes or by each its own."""

    def __init__(self, compress: dict[str, Any] | None, alone: bool = False, batch: int = BATCH) -> None:
        torch.manual_seed(0)
        self.model = create_model("resnet20_cifar", 10, 3)
        self.network = self.model if alone else DistributedDataParallel(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, 0.9)
        draw = torch.Generator().manual_seed(dist.get_rank())
        self.images, self.labels = torch.randn(batch, 3, 32, 32, generator=draw), torch.randint(10, (batch,))
        self.scheduler, self.count = None, 0
        if compress is not None:
            group = dist.new_group([dist.get_rank()], use_local_synchronization=True) if alone else None
            more: dict[str, Any] = {"example_inputs": self.images[:2], "process_group": group}
            self.scheduler = dict_config(self.model, self.optimizer, compress, **more)

    def step(self) -> None:
        """Take one step, through the scheduler's hooks."""
        at, s = (*divmod(self.count, EPOCH), EPOCH), self.scheduler
        if s and at[1] == 0:
            s.on_epoch_begin(at[0], self.optimizer, EPOCH)
        if s:
            s.on_minibatch_begin(*at, self.optimizer)
        loss = F.cross_entropy(self.network(self.images), self.labels)
        if s:
            loss = s.before_backward_pass(*at, loss, self.optimizer)
        self.optimizer.zero_grad()
        loss.backward()
        if s:
            s.before_parameter_optimization(*at, self.optimizer)
        self.optimizer.step()
        if s:
            s.on_minibatch_end(*at, self.optimizer)
        self.count += 1


def ratios(compress: dict[str, Any], steps: int) -> Iterator[tuple[float, float, float]]:
    """Yield, by the clock and by the process's own time, with / without: alone, together, and the second by the first.

    Medians over turns, in each of which all four make a step.
    """
    loops = [Loop(compress, alone=True), Loop(None, alone=True), Loop(compress), Loop(None)]
    turns = []
    for _ in range(steps + 3):
        turn = []
        for loop in loops:
            dist.barrier()
            begun = time.perf_counter(), time.process_time()
            loop.step()
            turn.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        if loops[0].count > 3 and loops[0].count % EPOCH != 1:  # an epoch's begin is no step
            turns.append(turn)
    for kind in (0, 1):
        each = [[times[kind] for times in turn] for turn in turns]
        pairs = [(a / b, c / d, c / d / (a / b)) for a, b, c, d in each]
        alone, together, beyond = (statistics.median(column) for column in zip(*pairs, strict=True))
        yield alone, together, beyond


def sent(compress: dict[str, Any], counts: Counter[str]) -> dict[str, float]:
    """Messages and bytes of an epoch's begin, and of a step (the ranking in the second epoch included in the first)."""
    loop, found = Loop(compress, batch=SMALL), Counter[str]()
    for number in range(2 * EPOCH):
        counts.clear()
        loop.step()
        kind = "epoch" if number == EPOCH else "step" if number > EPOCH else ""
        for name, value in counts.items():
            found[f"{name} {kind}"] += value
    own = {name: found[f"{name} step"] / (EPOCH - 1) for name in ("messages", "bytes")}
    begin = {name: found[f"{name} epoch"] - own[name] for name in own}
    return {"step messages": own["messages"], "step bytes": own["bytes"], "epoch messages": begin["messages"],
            "epoch bytes": begin["bytes"]}  # fmt: skip


def work(rank: int, size: int, port: int, steps: int) -> None:
    """Do what each process has to do; the first prints."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_PORT=str(port))
    dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    for name, compress in TIMED.items() if steps else ():
        for clock, found in zip(("the clock", "own time"), ratios(compress, steps), strict=True):
            if rank == 0:
                text = "alone x {:.3f}  together x {:.3f}  beyond x {:.3f}".format(*found)
                print(f"{name:24s} {size} processes  by {clock:9s}  {text}", flush=True)
    counter = Sent()
    for name, compress in COUNTED.items():
        values = sent(compress, counter.counts)
        if rank == 0:
            shown = "  ".join(f"{key} {value:10,.1f}" for key, value in values.items())
            print(f"{name:24s} {size} processes  {shown}", flush=True)


def main() -> None:
    """Run the processes of each number."""
    options = argparse.ArgumentParser()
    options.add_argument("--processes", type=int, nargs="+", default=[2])
    options.add_argument("--steps", type=int, default=57)
    given = options.parse_args()
    loopback = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))
    os.environ.update(OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME=loopback, MASTER_ADDR="127.0.0.1")
    for size in given.processes:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        torch.multiprocessing.spawn(work, (size, port, given.steps), size)


if __name__ == "__main__":
    main()
