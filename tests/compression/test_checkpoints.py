"""Checkpoints: atomic, checked, and unable to run code."""

import os
import pickle

import pytest
import torch
from torch import nn

from potstill.command.migration.distiller_pickle import read_pickled
from potstill.compression import CheckpointError, CompressionScheduler, load_checkpoint, save_checkpoint

CONTENTS = {"epoch": 3, "minibatch": 0, "arch": "mlp", "state_dict": {"w": torch.arange(6.0)}}


def test_round_trip_keeps_the_one_before(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENTS)
    save_checkpoint(path, {**CONTENTS, "epoch": 4})
    assert load_checkpoint(path)["epoch"] == 4
    assert load_checkpoint(path.with_name("checkpoint.pt.previous"))["epoch"] == 3
    assert torch.equal(load_checkpoint(path)["state_dict"]["w"].cpu(), torch.arange(6.0).cpu())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.previous"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_one_is_noticed_and_the_previous_used(tmp_path, damage, caplog):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENTS)
    save_checkpoint(path, {**CONTENTS, "epoch": 4})
    data = bytearray(path.read_bytes())
    if damage == "flip":
        spot = data.index(torch.arange(6.0).cpu().numpy().tobytes())
        data[spot + 2] ^= 1
    path.write_bytes(bytes(data) if damage == "flip" else bytes(data[: len(data) // 2]) if damage == "cut" else b"")
    assert load_checkpoint(path)["epoch"] == 3
    assert f"using {path}.previous instead" in caplog.text
    path.with_name("checkpoint.pt.previous").unlink()
    with pytest.raises(CheckpointError, match="checkpoint.pt: "):
        load_checkpoint(path)


def test_damage_is_told_in_plain_words(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENTS)
    path.write_bytes(path.read_bytes()[:-100])
    for read in (load_checkpoint, read_pickled):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: damaged: its end is missing"
    path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == f"{path}: not a checkpoint of tensors and plain data"
    with pytest.raises(CheckpointError) as caught:
        read_pickled(path)
    assert str(caught.value) == f"{path}: not a checkpoint written by torch, or a damaged one"


def test_other_programs_checkpoints_are_refused_with_the_way_out(tmp_path):
    path, state = tmp_path / "checkpoint.pth.tar", {"module.w": torch.ones(2)}
    distillers = {"epoch": 1, "arch": "resnet20_cifar", "state_dict": state, "optimizer_type": torch.optim.SGD}
    plain = {**distillers, "optimizer_type": "SGD"}
    for contents, new in ((distillers, False), (distillers, True), (plain, True), (state, True)):
        torch.save(contents, path, _use_new_zipfile_serialization=new)
        with pytest.raises(CheckpointError, match=f"{path.name}: not a checkpoint .*--import-distiller FILE"):
            load_checkpoint(path)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "evil.pt"
    torch.save({**CONTENTS, "format": 1, "extra": Evil()}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of tensors and plain data"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "three"}, "checkpoint.pt: epoch: expected a whole number of at least 0, found 'three'"),
        ({"state_dict": {"w": 1}}, "checkpoint.pt: state_dict.w: expected a tensor, found 1"),
        ({"state_dict": {"w": torch.tensor(torch.nan)}}, "state_dict.w: has values that are not numbers"),
        ({"extra": {"list": [set()]}}, "extra.list.0: holds a set, neither a tensor nor plain data"),
        ({"extra": torch.zeros(1).expand(2**40)}, "has fewer values in the file than that"),
        ({"extra": torch.zeros(2).to_sparse()}, "extra: is a tensor of a kind that no checkpoint has"),
        ({"extra": {(1, 2): 3}}, r"extra: has the key a tuple of 2, not a name or number"),
        ({"format": 99}, "format 99; this version reads format 1"),
    ],
)
def test_fields_are_checked(tmp_path, change, message):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 1, **CONTENTS, **change}, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_folder_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENTS)

    class Unsavable:
        def __reduce__(self):
            raise OSError("No space left on device")

    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_checkpoint(path, {**CONTENTS, "extra": Unsavable()})
    assert load_checkpoint(path)["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "nothing.pt")


@pytest.mark.parametrize("state", [{}, {"masks": {}, "recipes": []}])
def test_what_is_no_state_is_told(state):
    scheduler = CompressionScheduler(nn.Linear(2, 2))
    missing = ", ".join(name for name in ("masks", "policies", "classes", "recipes") if name not in state)
    with pytest.raises(CheckpointError, match=f"^state: {missing} missing: give load_state_dict"):
        scheduler.load_state_dict(state)
