"""The benchmark of families: its results are continued, its page says all outcomes; three families run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/coverage.py"


@pytest.fixture
def coverage(monkeypatch):
    spec = importlib.util.spec_from_file_location("coverage_of_families", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_results_are_read_as_they_were_written_and_shown(coverage, tmp_path):
    rows = [
        coverage.Row("timm", "one", "test_one", "exact", 100, 60, 0.5, 1.0, 1e-7, 0.25, 0.5, "aten.relu: why"),
        coverage.Row("timm", "two", outcome="refused", reason="no, it says | no"),
    ]
    for row in rows:
        coverage.append(tmp_path / "rows.csv", row)
    assert coverage.known(tmp_path / "rows.csv") == rows
    text = coverage.page(rows)
    assert "2 families: 1 exact, 1 refused." in text
    assert "| one | test_one | exact | 100 | 60 | 50% | 100% | 1e-07" in text
    assert "- two: no, it says / no" in text and "- one: aten.relu: why" in text


@pytest.mark.slow
def test_three_families(coverage):
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    assert coverage.main(["--short"]) == 0
