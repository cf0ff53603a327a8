"""The README keeps its word: its schedule is the shipped one, its first command does what it says."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import compress_classifier
from potstill.compression import load_checkpoint
from potstill.models import create_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def shell_lines() -> list[str]:
    lines = [line for kind, text in BLOCKS if kind in ("sh", "bash") for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_schedule_shown_is_the_shipped_one():
    shown = next(yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml")
    assert shown == yaml.safe_load((ROOT / "schedules" / "googlenet_l0.yaml").read_text())


def test_test_command_is_what_ci_runs():
    command = next(line for line in shell_lines() if line.endswith("&& pytest"))
    assert command == 'pip install -e ".[test]" && pytest'
    assert command.replace("install", "install -q") in (ROOT / ".ci" / "run").read_text()


def test_documents_that_it_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The first command, after its installation."""
    out = tmp_path_factory.mktemp("readme")
    line = next(line for line in shell_lines() if "googlenet_l0.yaml" in line)
    arguments = shlex.split(line.partition("compress_classifier.py ")[2])
    arguments[arguments.index("--compress") + 1] = str(ROOT / "schedules" / "googlenet_l0.yaml")
    assert compress_classifier.main([*arguments, "-o", str(out)]) == 0
    return out / "latest"


def test_first_command_halves_the_network_and_keeps_its_accuracy(run):
    summary = json.loads((run / "summary.json").read_text())
    dense, thinned = summary["dense"], summary["thinned"]
    assert dense["parameters"] == sum(p.numel() for p in create_model("googlenet_cifar").parameters())
    assert thinned["parameters"] <= 0.5 * dense["parameters"]
    assert thinned["macs"] < dense["macs"]
    assert thinned["bytes"] < dense["bytes"]
    assert thinned["top1"] >= dense["top1"] - 1
    assert thinned["top1"] == summary["masked"]["top1"]
    assert 0 < summary["max_relative_difference"] <= 1e-5
    assert summary["gone"] == pytest.approx(60, abs=0.5)


def test_first_command_leaves_no_gate_behind(run):
    names = set(load_checkpoint(run / "thinned.pt")["state_dict"])
    assert names == set(create_model("googlenet_cifar").state_dict())


def test_first_command_writes_metrics(run):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(len(rows)))
    assert float(rows[-1]["val_top1"]) > 95
    assert any(name.endswith("expected_sparsity") for name in rows[0])


def test_thinned_checkpoint_answers_without_gates_or_masks(run):
    """The network of the thinned checkpoint, on images that no check of the run has seen, against the masked one's."""
    from potstill.thinning import resize_to

    masked, thinned = create_model("googlenet_cifar"), create_model("googlenet_cifar")
    masked.load_state_dict(load_checkpoint(run / "checkpoint.pt")["state_dict"])
    weights = load_checkpoint(run / "thinned.pt")["state_dict"]
    resize_to(thinned, weights)
    thinned.load_state_dict(weights)
    images = torch.rand(16, 3, 32, 32) * 4 - 2
    with torch.no_grad():
        expected, found = masked.eval()(images), thinned.eval()(images)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5
