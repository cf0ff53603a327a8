"""A run that goes on as another says so: each difference a warning with both values, or an error."""

import shutil

import pytest
import torch
from PIL import Image

import compress_classifier
from potstill.command.cli.options import parse
from potstill.command.run import size_report
from potstill.command.run.changed_options import SAME_RESULTS, surroundings, tell_changes
from potstill.compression import load_checkpoint, save_checkpoint
from potstill.compression.files.checked import Field
from potstill.models.datasets import DatasetError, load_dataset

SMALL = ["-a", "mlp_bn_drop", "--limit-train", "64", "--limit-test", "20", "-b", "32", "--epochs", "2", "--lr", "0.02"]
SCHEDULE = """\
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.6, weights: [layers.1.weight]}
policies:
  - {pruner: {instance_name: agp}, starting_epoch: 0, ending_epoch: 2, frequency: 1}
"""


@pytest.fixture(autouse=True)
def _no_time_for_latencies(monkeypatch):
    monkeypatch.setattr(size_report, "SECONDS", 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run after its first epoch of two."""
    out = tmp_path_factory.mktemp("run")
    (out / "s.yaml").write_text(SCHEDULE)
    assert compress_classifier.main([*SMALL, "--epochs", "1", "--compress", str(out / "s.yaml"), "-o", str(out)]) == 0
    return (out / "latest").resolve()


@pytest.fixture
def folder(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def warnings_of(folder, capsys, *more):
    assert compress_classifier.main(["--resume-from", str(folder), "--epochs", "2", *more]) == 0
    said = capsys.readouterr().out
    return [line for line in said.splitlines() if line.startswith("warning: ")]


def test_the_same_run_is_quiet(folder, capsys):
    assert warnings_of(folder, capsys) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-b", "16"], "the batch size is another than before: 16, it was 32"),
        (["--seed", "7"], "the seed is another than before: 7, it was 0"),
        (["--limit-train", "48"], "number of training images (--limit-train) is another than before: 48, it was 64"),
        (["--lr", "0.5"], "the learning rate 0.5 is not used: the optimizer goes on with its own, which began at 0.02"),
        (["--optimizer", "adam"], "the checkpoint's optimizer is sgd: adam starts afresh"),
    ],
)
def test_other_options_are_told(folder, capsys, options, told):
    found = warnings_of(folder, capsys, *options)
    assert len(found) == 1 and told in found[0], found


def test_every_other_option_is_told_with_both_values(caplog):
    """Whichever it is; those that change no result are few, and named."""
    options = parse(SMALL)
    data = load_dataset("digits", limit_train=20, limit_test=20, limit_validation=20)
    now = options.kept()
    state = {"options": now, "optimizer_name": now["optimizer"], "surroundings": surroundings(data)}
    assert now.keys() >= SAME_RESULTS
    for name in now.keys() - SAME_RESULTS:
        caplog.clear()
        before = {**now, name: "something else"}
        tell_changes(now, data, Field({**state, "options": before}))
        assert len(caplog.messages) == 1, name
        said = caplog.messages[0]
        shown = "not given" if now[name] is None else str(now[name])
        assert "something else" in said and shown in said, said
    caplog.clear()
    tell_changes(now, data, Field(state))
    assert not caplog.messages


def test_other_surroundings_are_told(folder, capsys):
    contents = load_checkpoint(folder / "checkpoint.pt")
    contents["surroundings"] = {**contents["surroundings"], "threads": 99, "files": "abc"}
    contents["surroundings"]["images"]["validation"] = 3
    save_checkpoint(folder / "checkpoint.pt", contents)
    found = "\n".join(warnings_of(folder, capsys))
    assert "the number of threads, and with it how sums are rounded, is another than before" in found
    assert f"{torch.get_num_threads()}, it was 99" in found
    assert "the number of validation images is another than before" in found and "it was 3" in found


def test_a_renamed_instance_is_told(folder, capsys):
    path = folder / "schedule.yaml"
    path.write_text(path.read_text().replace("agp", "other"))
    found = "\n".join(warnings_of(folder, capsys))
    assert "policy agp of the checkpoint is not in this schedule: its state is dropped (masks stay)" in found
    assert "policy other is not in the checkpoint: it begins afresh" in found


@pytest.fixture
def images(tmp_path):
    """Ten images in each of two classes, and a test set."""
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), (100 * label, 20 * i, 50)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_a_split_is_found_by_the_names_of_its_files(images):
    first = load_dataset("imagefolder", images, validation_split=0.3, seed=1)
    wanted = [first.validation.source.load(torch.tensor([i])) for i in range(len(first.validation))]
    Image.new("RGB", (8, 8), (9, 9, 9)).save(images / "train" / "cat" / "00.png")  # all positions behind move
    again = load_dataset("imagefolder", images, indices=first.split_indices, held_out=first.split_names)
    found = [again.validation.source.load(torch.tensor([i])) for i in range(len(again.validation))]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert again.split_names == first.split_names and again.files != first.files
    (images / "train" / first.split_names[0]).rename(images / "train" / "cat" / "renamed.png")
    with pytest.raises(DatasetError, match=f"validation image '{first.split_names[0]}' of the stored split does not"):
        load_dataset("imagefolder", images, indices=first.split_indices, held_out=first.split_names)
