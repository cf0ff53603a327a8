"""What ranks do that share the parameters of a network: train it by a schedule, all on the same data."""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode

from potstill.compression import dict_config
from potstill.compression.processes.shards import part
from potstill.compression.sharded_state import gathered as gathered_state
from potstill.thinning import resize_to, thin

EPOCHS, STEPS = 4, 3
HOOKS = ("on_epoch_begin", "on_minibatch_begin", "before_backward_pass", "before_parameter_optimization")
HOOKS += ("on_minibatch_end", "on_epoch_end")


class Net(nn.Module):
    """Widths that processes share evenly and unevenly, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 7, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(7)
        self.conv3, self.bn3 = nn.Conv2d(7, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.fc1, self.fc2 = nn.Linear(7, 12), nn.Linear(12, 3)
        self.relu1, self.relu2, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)) + x)
        return self.fc2(self.relu4(self.fc1(x.mean((2, 3)))))


def shard(model, device="cpu"):
    """The model itself, sharded over all processes."""
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for layer in list(model.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def averages():
    """Whether torch by itself averages the gradients of shards over the processes."""
    torch.manual_seed(0)
    plain, x = nn.Linear(4, 6), torch.randn(3, 4)
    sharded = nn.Linear(4, 6)
    sharded.load_state_dict(plain.state_dict())
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    for model in (plain, sharded):
        model(x).square().sum().backward()
    return {"averages": torch.allclose(whole(sharded.weight.grad), plain.weight.grad)}


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def placements(tensor):
    return getattr(tensor, "placements", None)


def digest(mask):
    return hashlib.sha256(whole(mask).detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:12]


class Run:
    def __init__(self, schedule, device="cpu"):
        draw = torch.Generator().manual_seed(1)
        self.images = torch.randn(STEPS, 8, 3, 8, 8, generator=draw).to(device)
        self.labels = torch.randint(0, 3, (STEPS, 8), generator=draw).to(device)
        torch.manual_seed(0)
        self.model = Net().to(device)
        if dist.is_initialized():
            shard(self.model, device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-2)
        self.scheduler = dict_config(self.model, self.optimizer, schedule, example_inputs=self.images[0, :2])
        self.leaks, self.masks, self.sent = [], [], set()
        for hook in HOOKS:
            setattr(self.scheduler, hook, self._listening(getattr(self.scheduler, hook)))

    def _listening(self, hook):
        """The hook, of which it is noted what it sends: a gathering would give each rank what is whole."""

        def listening(*args, **kwargs):
            with CommDebugMode() as sent:
                result = hook(*args, **kwargs)
            self.sent |= {str(kind) for kind in sent.get_comm_counts()}
            return result

        return listening

    def go(self, first=0, last=EPOCHS * STEPS):
        self.attachment = self.scheduler.attach(self.optimizer, STEPS, first)
        for step in range(first, last):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.images[step % STEPS]), self.labels[step % STEPS]).backward()
            self.optimizer.step()
            self.look(step)
            if step % STEPS == STEPS - 1:
                with torch.no_grad():
                    self.model.eval()(self.images[0])  # leaves whole parameters of the root in place
                    self.model.train()
        return self

    def look(self, step):
        masks = {name: entry.mask for name, entry in self.scheduler.masks.items() if entry.mask is not None}
        self.masks.append({name: digest(mask != 0) for name, mask in masks.items()})
        for name, parameter in self.scheduler.masks._parameters.items():
            if name in masks and bool((part(parameter)[part(masks[name]) == 0] != 0).any()):
                self.leaks.append(f"step {step}: {name}")

    def told(self):
        weights = {name: whole(p).detach().flatten().tolist() for name, p in self.scheduler.masks._parameters.items()}
        masks = {name: entry.mask for name, entry in self.scheduler.masks.items() if entry.mask is not None}
        placed = [name for name, mask in masks.items() if placements(mask) != placements(self._of(name))]
        return {"masks": self.masks, "weights": weights, "leaks": self.leaks, "placed": placed}

    def _of(self, name):
        return self.scheduler.masks._parameters[name]


def train(schedule, device="cpu"):
    run = Run(schedule, device).go()
    run.scheduler.finish()
    run.look("finish")
    return {**run.told(), "sent": sorted(run.sent)}


def gathered(schedule):
    """Train, gather the state on rank 0, thin a plain network there; then every rank makes one of that shape anew."""
    run = Run(schedule).go()
    run.scheduler.finish()
    state = get_model_state_dict(run.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    small = [None]
    if dist.get_rank() == 0:
        plain = Net()
        plain.load_state_dict(state)
        thin(plain, run.images[0, :2])
        small = [plain.state_dict()]
    dist.broadcast_object_list(small, src=0)
    with torch.device("meta"):
        again = Net()
    resize_to(again, small[0])
    again.to_empty(device="cpu")
    again.load_state_dict(small[0])
    outputs = again.eval()(run.images[0])
    shard(again)
    sharded = again.eval()(run.images[0])
    with torch.no_grad():
        masked = run.model.eval()(run.images[0])
    try:
        run.scheduler.thin(run.optimizer)
        refusal = ""
    except Exception as error:
        refusal = str(error)
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in small[0].items()},
        "difference": float((masked - outputs).abs().max()),
        "sharded": float((sharded - outputs).abs().max()),
        "refusal": refusal,
    }


MIDDLE = EPOCHS * STEPS // 2 + 1


def save(schedule, path):
    """Save all states in the middle of an epoch with torch.distributed.checkpoint, and go on to the end."""
    run = Run(schedule).go(0, MIDDLE)
    states = dict(zip(("model", "optimizer"), get_state_dict(run.model, run.optimizer), strict=True))
    dcp.save({**states, "scheduler": run.scheduler.state_dict()}, checkpoint_id=path)
    run.attachment.remove()
    run.masks.clear()
    run.go(MIDDLE)
    return run.told()


def load(schedule, path):
    """Take the states up and go on to the end."""
    from potstill.compression import load_distributed

    run = Run(schedule)
    model, optimizer = get_state_dict(run.model, run.optimizer)
    states = {"model": model, "optimizer": optimizer}
    dcp.load(states, checkpoint_id=path)
    set_state_dict(run.model, run.optimizer, model_state_dict=model, optim_state_dict=optimizer)
    load_distributed(run.scheduler, path, "scheduler")
    run.go(MIDDLE)
    return run.told()


def one_file(schedule, path, whole):
    """Take up a state that rank 0 has stored by itself; returns whether the masks are the same."""
    first, again = Run(schedule).go(0, MIDDLE), Run(schedule)
    state = first.scheduler.state_dict()
    state = gathered_state(state) if whole else state
    if dist.get_rank() == 0:
        torch.save(state, path)
    dist.barrier()
    again.scheduler.load_state_dict(torch.load(path, weights_only=True))
    masks = [(entry.mask, again.scheduler.masks[name].mask) for name, entry in masked(first)]
    return {"same": [torch.equal(part(one), part(other)) for one, other in masks]}


def masked(run):
    return [(name, entry) for name, entry in run.scheduler.masks.items() if entry.mask is not None]
