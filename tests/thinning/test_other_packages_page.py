"""The benchmark of other packages: its networks are named, each row has a cell a column; no package is needed here."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks/other_packages"


def test_rows_have_a_cell_for_each_column(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("other_packages", FOLDER / "__main__.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert {("diffusers", "pixart"), ("litgpt", "llama"), ("x-transformers", "plain")} <= script.networks().keys()
    row = script.coverage.Row("one 1.0", "two", "Three", "exact", 100, 60, 0.5, 1.0, 1e-7, 0.25, 0.5, "why | not")
    refused = script.coverage.Row("one 1.0", "two", outcome="refused", reason="why")
    lines = [script.line(row), script.line(refused), *script.head().splitlines()[-2:]]
    assert {text.count("|") for text in lines} == {len(script.COLUMNS) + 1}
    assert script.key_of(row) == ("one", "two")
    for name in ("coverage", "language", "vision"):  # found by their plain names
        sys.modules.pop(name, None)
