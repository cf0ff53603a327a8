"""The code of the pages on frameworks runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

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
