"""What ranks do that disagree, or that are in a group of their own."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from potstill.compression import CompressionScheduler, dict_config, load_schedule, sparsity, sparsity_table
from potstill.thinning import count_macs, resize_to, thin, trace

EXAMPLE = torch.zeros(1, 3, 8, 8)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6), nn.ReLU(), nn.Linear(6, 2)
    )


def half(epochs):
    args = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": ["0.weight"]}
    named = {"pruner": {"instance_name": "it"}, "epochs": epochs}
    return {"version": 1, "pruners": {"it": args}, "policies": [named]}


def message(act):
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def differ(where):
    """Ranks with other weights: the error, by the moment at which it is to be found."""
    model = net(dist.get_rank() if where == "on_epoch_begin" else 0)
    scheduler = dict_config(model, None, half([0]), example_inputs=EXAMPLE)
    if where == "on_epoch_begin":
        return message(lambda: scheduler.on_epoch_begin(0))
    scheduler.on_epoch_begin(0)
    mask = torch.ones_like(model[4].weight)
    mask[:, dist.get_rank()] = 0
    scheduler.masks.set("mine", "4.weight", mask)
    return message({"finish": scheduler.finish, "thin": scheduler.thin, "state_dict": scheduler.state_dict}[where])


def penalty(strength):
    args = {"class": "L1Regularizer", "reg_regims": {"0.weight": strength}}
    named = {"regularizer": {"instance_name": "it"}, "epochs": [0]}
    return {"version": 1, "regularizers": {"it": args}, "policies": [named]}


def gates():
    args = {"class": "L0Regularizer", "weights": ["0.weight"], "strength": 1.0}
    named = {"regularizer": {"instance_name": "it"}, "starting_epoch": 0, "ending_epoch": 2}
    return {"version": 1, "regularizers": {"it": args}, "policies": [named]}


OTHER_PLANS = {
    "class": (gates(), penalty(0.1)),
    "strength": (penalty(0.1), penalty(0.2)),
    "times": (half([0]), half([1])),
    "policy": (gates(), None),
}


def plans(kind):
    """Ranks with other schedules: the error."""
    plan = OTHER_PLANS[kind][dist.get_rank()]
    scheduler = dict_config(net(), None, plan, example_inputs=EXAMPLE) if plan else CompressionScheduler(net(), EXAMPLE)
    return message(lambda: scheduler.on_epoch_begin(0))


def places():
    """Rank 0 has another epoch before it, rank 1 has not: the error."""
    scheduler = dict_config(net(), None, half([0]), example_inputs=EXAMPLE)
    scheduler.on_epoch_begin(0)
    return message(scheduler.finish if dist.get_rank() else lambda: scheduler.on_epoch_begin(1))


def states():
    """Rank 0 loads a state of before the gates began, rank 1 one of after that: the error."""
    scheduler, found = dict_config(net(), None, gates(), example_inputs=EXAMPLE), []
    found.append(scheduler.state_dict())
    scheduler.on_epoch_begin(0)
    found.append(scheduler.state_dict())
    again = dict_config(net(), None, gates(), example_inputs=EXAMPLE)
    return message(lambda: again.load_state_dict(found[dist.get_rank()]))


def joined(given):
    """Rank 1 has fewer batches, and DDP is told so: the error, the steps made, the hooks left on the network."""
    model = net()
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = dict_config({"model": model, "wrapper": wrapper}[given], optimizer, half([0]), example_inputs=EXAMPLE)
    attachment = scheduler.attach(optimizer, 3)

    def train():
        with wrapper.join():
            for _ in range(3 - dist.get_rank()):
                wrapper(torch.ones(4, 3, 8, 8)).sum().backward()
                optimizer.step()

    return [message(train), attachment.steps, len(model._forward_pre_hooks)]


def apart():
    """Halves of the ranks train different networks, each in a group of its own; the default group would tell."""
    half_of, size = dist.get_rank() * 2 // dist.get_world_size(), dist.get_world_size() // 2
    mine = dist.new_group(list(range(half_of * size, (half_of + 1) * size)), use_local_synchronization=True)
    model = net(half_of)
    scheduler = dict_config(model, None, half([0]), example_inputs=EXAMPLE, process_group=mine)
    scheduler.on_epoch_begin(0)
    scheduler.state_dict()
    scheduler.thin()
    return list(model[0].weight.shape)


def stranger():
    """A group that the process is not in."""
    other = dist.new_group([1 - dist.get_rank()])
    return message(lambda: CompressionScheduler(net(), process_group=other))


def statistics_of_norms():
    """Running statistics that differ make other constants of dead channels: those of rank 0 count."""
    model = net()
    with torch.no_grad():
        model[0].weight[:3], model[0].bias[:3] = 0, 0
        model[1].running_mean.normal_(generator=torch.Generator().manual_seed(dist.get_rank()))
    scheduler = CompressionScheduler(model, EXAMPLE)
    scheduler.thin()
    return [[float(value) for value in model[4].bias], list(model[0].weight.shape)]


def wrapped():
    """All that takes a model takes wrappers of it, and their parameters keep their names."""
    wrappers = {
        "DDP": DistributedDataParallel,
        "DataParallel": DataParallel,
        "compiled": lambda model: torch.compile(model, backend="eager"),
        "compiled DDP": lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
    }
    found = {}
    for kind, wrap in wrappers.items():
        model = net()
        given = wrap(model)
        load_schedule(half([0]), given)
        scheduler = dict_config(given, None, half([0]), example_inputs=EXAMPLE)
        scheduler.on_epoch_begin(0)
        counts = [count_macs(given, EXAMPLE), sparsity(given), len(sparsity_table(given)), trace(given, EXAMPLE).count]
        recipe = thin(given, EXAMPLE)
        recipe.apply(DataParallel(net()))
        resize_to(DataParallel(net()), model.state_dict())
        same = scheduler.model is model
        found[kind] = [same, list(scheduler.masks)[:2], counts, list(model[0].weight.shape)]
    return found


def alone():
    """The same without processes."""
    model = net()
    scheduler = dict_config(model, None, half([0]), example_inputs=EXAMPLE)
    scheduler.on_epoch_begin(0)
    return [count_macs(model, EXAMPLE), sparsity(model), len(sparsity_table(model)), trace(model, EXAMPLE).count]


def command(arguments):
    """The command line, as torchrun starts it: its exit status, and what this rank says."""
    with tempfile.TemporaryFile("w+") as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            from compress_classifier import main

            status = main(arguments)
        except SystemExit as end:
            status = end.code
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        return [status, said.read()]


def dies():
    """Rank 1 is gone in mid-epoch: the error of the others, in the step or in the scheduler."""
    model = net()
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    dict_config(model, optimizer, gates(), example_inputs=EXAMPLE).attach(optimizer, 4)

    def train():
        for step in range(8):
            if step == 2 and dist.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            wrapper(torch.ones(4, 3, 8, 8)).sum().backward()
            optimizer.step()

    return message(train)


def late():
    """Rank 1 never asks for the state: the error when the group has waited as long as it waits."""
    impatient = dist.new_group(timeout=timedelta(seconds=5))
    scheduler = dict_config(net(), None, half([0]), example_inputs=EXAMPLE, process_group=impatient)
    return message(scheduler.state_dict) if dist.get_rank() == 0 else ""


def accelerated(path):
    """Accelerate prepares, saves in the middle and loads: the masks and weights at the end, with and without."""
    from accelerate import Accelerator

    ends = []
    for resumed in (False, True):
        accelerator = Accelerator(cpu=True)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
        model, optimizer = accelerator.prepare(model, optimizer)
        named = {"pruner": {"instance_name": "it"}, "starting_epoch": 0, "ending_epoch": 4}
        args = {"class": "ActivationAPoZRankedFilterPruner_AGP", "initial_sparsity": 0.1, "final_sparsity": 0.6}
        plan = {"version": 1, "pruners": {"it": {**args, "weights": ["0.weight"]}}, "policies": [named]}
        scheduler = dict_config(model, optimizer, plan, example_inputs=EXAMPLE)
        accelerator.register_for_checkpointing(scheduler)
        if resumed:
            accelerator.load_state(path)
        scheduler.attach(optimizer, 3, 5 if resumed else 0)
        for step in range(5 if resumed else 0, 12):
            if step == 5 and not resumed:
                accelerator.save_state(path, safe_serialization=False)
            draw = torch.Generator().manual_seed(step * 10 + dist.get_rank())
            accelerator.backward(model(torch.randn(4, 3, 8, 8, generator=draw) + dist.get_rank()).square().mean())
            optimizer.step()
            optimizer.zero_grad()
        ends.append([scheduler.model[0].weight.flatten().tolist(), list(scheduler.masks)[:2]])
        accelerator._custom_objects.clear()
    return ends
