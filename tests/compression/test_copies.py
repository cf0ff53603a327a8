"""Schedulers that are pickled go on as the original does; parameters of whole numbers; products of masks."""

import logging
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from potstill.compression.parameter_mask import OwnedMask, ParameterMask
from potstill.compression.schedule import ScheduleError, dict_config, load_schedule

KINDS = {
    "levels": ("pruner", {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}),
    "activations": (
        "pruner",
        {
            "class": "ActivationAPoZRankedFilterPruner",
            "desired_sparsity": 0.5,
            "group_type": "Filters",
            "weights": ["0.weight"],
        },
    ),
    "rigl": ("pruner", {"class": "RigLPruner", "sparsity": 0.5, "weights": ["0.weight"]}),
    "gates": ("regularizer", {"class": "L0Regularizer", "target_sparsity": 0.3, "weights": ["0.weight"]}),
    "rates": ("lr_scheduler", {"class": "StepLR", "step_size": 1}),
}


def made(kind, definition):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    window = {"starting_epoch": 0, "ending_epoch": 4, "frequency": 1}
    policies = [{kind: {"instance_name": "p"}, **window}]
    schedule = {f"{kind}s": {"p": definition}, "policies": policies}
    return model, optimizer, dict_config(model, optimizer, schedule, example_inputs=torch.randn(2, 3, 8, 8))


def train(model, optimizer, scheduler, epochs):
    images = torch.linspace(-1, 1, 4 * 192).reshape(4, 3, 8, 8)
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch, optimizer, 2)
        for i in range(2):
            scheduler.on_minibatch_begin(epoch, i, 2, optimizer)
            loss = F.cross_entropy(model(images), torch.tensor([0, 1, 2, 0]))
            loss = scheduler.before_backward_pass(epoch, i, 2, loss, optimizer)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(epoch, i, 2, optimizer)
            optimizer.step()
            scheduler.on_minibatch_end(epoch, i, 2, optimizer)
        scheduler.on_epoch_end(epoch, optimizer, {"min": 1.0, "max": 1.0}, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_pickled_goes_on_as_the_original(kind):
    parts = made(*KINDS[kind])
    train(*parts, [0])
    back = pickle.loads(pickle.dumps(parts))
    train(*back, [1, 2])
    train(*parts, [1, 2])
    for name, value in parts[0].state_dict().items():
        assert torch.equal(value, back[0].state_dict()[name]), name
    assert back[2].model is back[0]


def test_what_was_pickled_is_not_attached_and_says_so(caplog):
    model, optimizer, scheduler = made(*KINDS["levels"])
    scheduler.attach(optimizer, 2)
    with caplog.at_level(logging.WARNING):
        back = pickle.loads(pickle.dumps((model, optimizer, scheduler)))
    assert back[2].attachment is None and scheduler.attachment is not None
    assert "is not attached: call attach on it" in caplog.text


class WithTable(nn.Module):
    """A layer and a parameter of whole numbers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.table = nn.Parameter(torch.ones(4, 4, dtype=torch.int64), requires_grad=False)


@pytest.mark.parametrize("name", ["table", "tab*"])
def test_a_parameter_of_whole_numbers_is_a_mistake_with_a_line(tmp_path, name):
    path = tmp_path / "s.yaml"
    path.write_text(
        f"pruners:\n  p:\n    class: SparsityLevelParameterPruner\n    levels:\n      {name!r}: 0.5\n"
        "policies:\n  - {pruner: {instance_name: p}, epochs: [0]}\n"
    )
    with pytest.raises(ScheduleError, match=rf"s.yaml:5: .*{name[:3]}.*whole numbers \(int64\)"):
        load_schedule(path, WithTable())


def test_patterns_go_by_parameters_of_whole_numbers():
    model = WithTable()
    schedule = {
        "pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": {"*": 0.5}}},
        "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}],
    }
    scheduler = dict_config(model, None, schedule)
    scheduler.on_epoch_begin(0, None, 1)
    assert int((model.fc.weight == 0).sum()) == 8


def combined(entry, keep):
    masks = [owned.mask for owned in entry.owners.values() if keep(owned)]
    return torch.stack(masks).prod(0) if masks else None


def test_what_is_combined_is_always_the_product():
    """Whatever is put, in whatever order; against the product of all masks."""
    chance = torch.Generator().manual_seed(0)
    entry = ParameterMask("w")
    for step in range(200):
        owner = f"o{int(torch.randint(6, (), generator=chance))}"
        mode = ("hard", "hard", "forward", "copy")[int(torch.randint(4, (), generator=chance))]
        mask = (torch.rand(20, generator=chance) > 0.3).float()
        if mode == "copy":
            mask = mask * 2
        if step % 3 == 0 and owner in entry.owners:
            mask = (entry.owners[owner].mask != 0) * mask
        entry.put(owner, OwnedMask(mask, mode, bool(step % 2)))
        if step % 7 == 0 and len(entry.owners) > 1:
            entry.owners.pop(owner)
            entry.changed()
        for found, keep in (
            (entry.mask, lambda owned: True),
            (entry.hard, lambda owned: owned.mode == "hard"),
            (entry.gradient_mask, lambda owned: owned.stops_gradient),
        ):
            wanted = combined(entry, keep)
            assert found is None if wanted is None else torch.equal(found, wanted)
        assert entry.is_soft == any(owned.mode != "hard" for owned in entry.owners.values())
