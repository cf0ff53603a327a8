"""Distiller's defect 22, one test for each of its parts: which epoch is the best, on which images, under which seed.

Was: "Best" prefers sparsity over accuracy. Validation split uses training augmentation and is re-drawn on resume;
`--deterministic` overrides `--seed`; many examples select on the test set. (That validation images are never augmented,
and that it is told where they are the test images, is shown in tests/models/test_splits.py.)
"""

import csv

import pytest
import torch

import compress_classifier
from potstill.command.run.best_epochs import BestEpochs, Score
from potstill.command.run.randomness import seed_everything
from potstill.compression import load_checkpoint
from potstill.models.datasets import load_dataset

LEVEL = """
pruners:
  most: {class: SparsityLevelParameterPruner, levels: {"layers*weight": 0.99}}
policies:
  - {pruner: {instance_name: most}, epochs: [2]}
"""


def train(tmp_path, *more):
    options = ["-a", "mlp", "--limit-train", "300", "--limit-test", "40", "-o", str(tmp_path), *more]
    assert compress_classifier.main(options) == 0
    return tmp_path / "latest"


def test_22_the_best_is_the_sparsest_or_the_most_accurate_as_asked():
    scores = [Score(0, 90.0, 99.0, 0.0, 100), Score(1, 70.0, 99.0, 0.5, 50), Score(2, 80.0, 99.0, 0.5, 50)]
    for by, expected, is_best in (
        ("sparsity", [2, 1, 0], [True, True, True]),
        ("top1", [0, 2, 1], [True, False, False]),
    ):
        best = BestEpochs(by)
        assert [best.add(score) for score in scores] == is_best
        assert [score.epoch for score in best.top(3)] == expected


@pytest.mark.parametrize("by", ["sparsity", "top1"])
def test_22_the_best_checkpoint_is_the_one_asked_for(tmp_path, by):
    (tmp_path / "s.yaml").write_text(LEVEL)
    schedule = ("--compress", str(tmp_path / "s.yaml"), "--epochs", "3")
    folder = train(tmp_path, *schedule, "--best-by", by, "--optimizer", "adam", "-b", "16")
    with (folder / "metrics.csv").open() as file:
        top1 = [float(row["val_top1"]) for row in csv.DictReader(file)]
    assert top1[2] < max(top1)
    zeros = int((load_checkpoint(folder / "best.pt")["state_dict"]["layers.1.weight"] == 0).sum())
    assert (zeros > 0) == (by == "sparsity")


def test_22_the_validation_images_stay_on_a_resume_under_another_seed(tmp_path):
    folder = train(tmp_path, "--epochs", "1", "--seed", "3")
    first = load_checkpoint(folder / "checkpoint.pt")["split"]
    train(tmp_path, "--epochs", "2", "--seed", "4", "--resume-from", str(folder))
    again = load_checkpoint(folder / "checkpoint.pt")
    assert again["epoch"] == 2
    assert again["split"] == first
    assert load_dataset("digits", seed=4).split_indices != first


def test_22_deterministic_kernels_keep_the_seed():
    try:
        drawn = []
        for seed, deterministic in ((1, True), (2, True), (1, False)):
            seed_everything(seed, deterministic)
            drawn.append(torch.rand(3).tolist())
    finally:
        torch.use_deterministic_algorithms(False)
    assert drawn[0] == drawn[2] != drawn[1]
