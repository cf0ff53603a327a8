"""The page on other loops runs as it stands: killed and resumed equals uninterrupted, bit for bit."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

PAGE = (Path(__file__).parents[2] / "docs" / "other_loops.md").read_text()
CODE = dict(zip(("accelerate", "ignite"), re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), strict=True))
CALL = {"accelerate": "train", "ignite": "fit"}
X = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
WEIGHTS = ["0.weight", "3.weight"]
EPOCHS = 5


def schedule(section, made, *policies, **more):
    return {section: {"it": made}, **more, "policies": [{section[:-1]: {"instance_name": "it"}, **p} for p in policies]}


WINDOW = {"starting_epoch": 0, "ending_epoch": 4, "frequency": 1}
FILTERS = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "group_type": "Filters"}
LEVELS = {"low_thresh_mult": 0.9, "hi_thresh_mult": 1.1, "sensitivities": dict.fromkeys(WEIGHTS, 0.8)}
CASES = {
    "agp": schedule(
        "pruners",
        {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8, "weights": WEIGHTS},
        WINDOW,
    ),
    "splicing": schedule("pruners", {"class": "SplicingPruner", **LEVELS}, WINDOW),
    "gates": schedule(
        "regularizers",
        {"class": "L0Regularizer", "weights": WEIGHTS, "target_sparsity": 0.4},
        {"starting_epoch": 0, "ending_epoch": 4},
    ),
    "thinning": schedule(
        "pruners", {**FILTERS, "weights": WEIGHTS[:1]}, {"epochs": [0]}, extensions={"thin": {"class": "Thinner"}}
    ),
}
CASES["thinning"]["policies"].append({"extension": {"instance_name": "thin"}, "epochs": [1]})


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    )  # fmt: skip


def loader():
    """Five batches an epoch."""
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)


def deadly(step):
    """A loss during which the process is killed, in this step."""
    steps = []

    def criterion(found, wanted):
        steps.append(1)
        if len(steps) == step:
            raise InterruptedError
        return F.cross_entropy(found, wanted)

    return criterion


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", CODE)
def test_killed_and_resumed_equals_uninterrupted(name, case, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    Path("schedule.yaml").write_text(json.dumps(CASES[case]))
    names = {}
    exec(CODE[name].replace("Accelerator()", "Accelerator(cpu=True)"), names)
    run = names[CALL[name]]
    whole, scheduler = run(network(), loader(), F.cross_entropy, EPOCHS, Path("whole"))
    with pytest.raises(InterruptedError):
        run(network(), loader(), deadly(14), EPOCHS, Path("cut"))
    left = EPOCHS - 2 if name == "accelerate" else EPOCHS
    again, resumed = run(network(), loader(), F.cross_entropy, left, Path("cut"), resume=True)
    pairs = zip(whole.state_dict().items(), again.state_dict().items(), strict=True)
    assert all(one == other and torch.equal(a, b) for (one, a), (other, b) in pairs)
    assert repr(scheduler.masks) == repr(resumed.masks)
