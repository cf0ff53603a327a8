"""What is told of one instance and of one policy: the parts that tests of the language share."""

import torch
from torch import nn

from potstill.compression.schedule import ScheduleError, load_schedule


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(12, 10)
        self.up = nn.ConvTranspose2d(8, 6, 2)
        self.none = nn.Parameter(torch.zeros(0, 3))


MODEL = Net()
RANKED = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "weights": ["conv1.weight"]}
GRADUAL = {
    "class": "L1RankedStructureParameterPruner_AGP",
    "initial_sparsity": 0.9,
    "final_sparsity": 0.5,
    "weights": ["conv1.weight"],
}
LASSO = {"class": "GroupLassoRegularizer", "reg_regims": {"conv1.weight": [0.1, "Filters"]}}
L1 = {"class": "L1Regularizer", "reg_regims": {"conv1.weight": 0.1}}
AGP = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5, "weights": ["conv1.weight"]}
FALLING = "final_sparsity: 0.5 must be above initial_sparsity 0.9"
FC_2D = "group_type: 2D needs a weight of 3 dimensions or more; fc.weight has shape (10, 12)"
KINDS = {"pruners": "pruner", "regularizers": "regularizer", "lr_schedulers": "lr_scheduler", "extensions": "extension"}


def told(schedule, model=MODEL) -> list[str]:
    try:
        load_schedule(schedule, model)
    except ScheduleError as error:
        return str(error).splitlines()
    return []


def of_instance(definition, section="pruners", model=MODEL) -> list[str]:
    """What is told of an instance, without its path."""
    policy = {KINDS[section]: {"instance_name": "p"}, "epochs": [1]}
    lines = told({section: {"p": definition}, "policies": [policy]}, model)
    assert all(line.startswith(f"{section}.p") for line in lines), lines
    return [line.removeprefix(f"{section}.p").lstrip(".:").strip() for line in lines]


def of_policy(definition, args=None, section="pruners", model=MODEL, /, **times) -> list[str]:
    """What is told of a policy, without its path."""
    acting = {"instance_name": "p"} | ({} if args is None else {"args": args})
    policy = {KINDS[section]: acting, **(times or {"starting_epoch": 0, "ending_epoch": 4})}
    lines = told({section: {"p": definition}, "policies": [policy]}, model)
    assert all(line.startswith("policies[0]") for line in lines), lines
    return [line.removeprefix("policies[0]").lstrip(".:").removeprefix(f"{KINDS[section]}.").strip() for line in lines]
