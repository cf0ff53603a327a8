"""The code of the pages on frameworks runs as it stands."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from potstill.compression import dict_config

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.filterwarnings("ignore")
def test_one_shot():
    first, second = blocks("one_shot.md")
    images = torch.randn(4, 3, 8, 8)
    names = {
        "model": nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)),
        "example_inputs": images,
        "criterion": nn.CrossEntropyLoss(),
        "batches": [(images, torch.tensor([0, 1, 2, 0]))],
    }
    exec(first, names)
    exec(second, names)
    assert names["recipe"].macs[1] <= names["recipe"].macs[0] / 2


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path, monkeypatch):
    pl = pytest.importorskip("lightning.pytorch")
    from .test_lightning import AGP, Module, X, Y

    monkeypatch.chdir(tmp_path)
    Path("schedule.yaml").write_text(str(AGP).replace("'", '"'))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    names = {"x": X[:2], "module": Module(), "train_loader": loader, "validation_loader": loader}
    (code,) = blocks("lightning.md")
    exec(
        code.replace("max_epochs=20", 'max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False'), names
    )
    assert int((names["module"].net[0].weight == 0).sum()) == 57
    assert isinstance(names["trainer"], pl.Trainer)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from .test_transformers import AGP, DATA, EXAMPLE, bert

    monkeypatch.chdir(tmp_path)
    Path("schedule.yaml").write_text(str(AGP).replace("'", '"'))
    arguments = transformers.TrainingArguments(
        "out", num_train_epochs=3, per_device_train_batch_size=8, use_cpu=True, report_to=[], save_strategy="no"
    )
    names = {"model": bert(), "arguments": arguments, "data": DATA, "batch": EXAMPLE}
    train, store = blocks("hugging_face.md")
    exec(train, names)
    names["recipe"] = names["compression"].recipe
    exec(store, names)
    assert int((names["model"].bert.encoder.layer[0].intermediate.dense.weight == 0).sum()) == int(0.8 * 48 * 32)


LEVEL = {
    "pruners": {
        "filters": {
            "class": "L1RankedStructureParameterPruner",
            "desired_sparsity": 0.5,
            "group_type": "Filters",
            "weights": ["0.weight"],
        },
        "single": {"class": "SparsityLevelParameterPruner", "levels": {"5.weight": 0.5}},
    },
    "policies": [
        {"pruner": {"instance_name": "filters"}, "epochs": [1]},
        {"pruner": {"instance_name": "single"}, "epochs": [1]},
    ],
}


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the pages on averages and quantization take for granted."""
    monkeypatch.chdir(tmp_path)
    Path("schedule.yaml").write_text(json.dumps(LEVEL))
    torch.manual_seed(0)
    images = torch.randn(8, 3, 8, 8)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 32),
        nn.ReLU(), nn.Linear(32, 3),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    labels = torch.arange(8) % 3
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    given = {"model": model, "optimizer": optimizer, "images": images, "batches": batches}
    return {**given, "epochs": 3, "criterion": nn.CrossEntropyLoss()}


def test_averages_of_weights(names):
    """The page's average is thinned as the network is, and computes what it computed as zeros."""
    (code,) = blocks("averaged_models.md")
    before, after = code.split("recipe = scheduler.thin(optimizer)")
    exec(before, names)
    masked = {name: tensor.clone() for name, tensor in names["average"].module.state_dict().items()}
    with torch.no_grad():
        expected = names["average"].module.eval()(names["images"])
    exec(f"recipe = scheduler.thin(optimizer){after}", names)
    shapes = [{n: p.shape for n, p in names[which].named_parameters()} for which in ("model", "smaller")]
    assert shapes[0] == shapes[1]
    assert names["smaller"][0].out_channels == 8
    assert int((masked["5.weight"] == 0).sum()) >= 64 * 32 // 2
    with torch.no_grad():
        torch.testing.assert_close(names["smaller"](names["images"]), expected)


def test_quantization(names):
    pytest.importorskip("torchao")
    (code,) = blocks("quantization.md")
    scheduler = dict_config(names["model"], names["optimizer"], LEVEL, example_inputs=names["images"][:2])
    scheduler.on_epoch_begin(1, names["optimizer"])
    exec(code, {**names, "scheduler": scheduler})
    assert names["model"][0].out_channels == 8
    kept = names["model"][5].weight.dequantize()
    hidden = scheduler.masks["5.weight"].mask == 0
    assert kept.shape == hidden.shape == (32, 32)
    assert int(hidden.sum()) > 300
    assert bool((kept[hidden] == 0).all())


@pytest.mark.filterwarnings("ignore")
def test_heads(capsys):
    pytest.importorskip("transformers")
    (code,) = blocks("transformer_heads.md")
    exec(code, {})
    page = (DOCS / "transformer_heads.md").read_text()
    (printed,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert printed in capsys.readouterr().out
