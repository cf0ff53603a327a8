"""The pages on models and data sets say what the code does."""

import re
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from potstill.models import create_model, model_info, model_names, register_model, registry
from potstill.models.datasets import augmentation_names, dataset_names, load_dataset, raw, register_dataset

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table_rows(page: str) -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (DOCS / page).read_text(), re.MULTILINE)
    return {name: rest.split(" | ") for name, rest in rows}


def code_block(page: str, containing: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    (block,) = [b for b in blocks if containing in b]
    return block


def test_the_table_of_models_is_complete_and_right() -> None:
    rows = table_rows("models.md")
    assert set(rows) == {name for name in model_names() if model_info(name).source == "potstill"}
    for name, row in rows.items():
        info = model_info(name)
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = create_model(name).eval()
            model(torch.empty(1, *info.input_shape))
        parameters = sum(p.numel() for p in model.parameters())
        expected = ["x".join(map(str, info.input_shape)), str(info.num_classes), f"{parameters:,}"]
        assert row == [*expected, f"{counter.get_total_flops() // 2:,}", info.description.rstrip(".")], name


def test_all_data_sets_and_augmentations_are_described() -> None:
    rows = table_rows("datasets.md")
    assert set(dataset_names()) | set(augmentation_names()) <= set(rows)


def test_the_example_of_a_new_model_works(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for table in ("_infos", "_factories"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    source = code_block("models.md", "lenet").replace("from .registry import register_model", "")
    exec(source, {"register_model": register_model})
    assert create_model("lenet")(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_example_of_a_new_data_set_works(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(raw, "_readers", dict(raw._readers))
    source = code_block("datasets.md", "stripes").replace("from .", "from potstill.models.datasets.")
    exec(source, {"register_dataset": register_dataset})
    bundle = load_dataset("stripes")
    assert [len(bundle.train), len(bundle.validation), len(bundle.test)] == [180, 20, 200]
