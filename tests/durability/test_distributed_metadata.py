"""The pickle of a `torch.distributed.checkpoint` folder: records are read, whatever would run is refused."""

import os
import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from potstill.compression import CheckpointError, CompressionScheduler, load_distributed
from potstill.compression.files.distributed_metadata import check_metadata


@pytest.fixture
def folder(tmp_path):
    """What torch writes."""
    state = {"plain": torch.zeros(10, dtype=torch.uint8), "parts": {"0": torch.ones(3, 4), "1": torch.ones(3) > 0}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one process
        dcp.save({"scheduler": state, "step": 3}, checkpoint_id=tmp_path / "saved")
    return tmp_path / "saved"


def test_what_torch_writes_is_read(folder):
    check_metadata(folder)
    with pytest.raises(CheckpointError, match="no checkpoint of torch"):
        check_metadata(folder.parent)
    (folder / ".metadata").write_bytes((folder / ".metadata").read_bytes()[:50])
    with pytest.raises(CheckpointError, match="damaged"):
        check_metadata(folder)


def test_members_of_enumerations_are_read_however_python_stores_them(folder):
    encodings = torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING
    path = folder / ".metadata"
    path.write_bytes(pickle.dumps(Evil(getattr, encodings, "TORCH_PRESERVE_FORMAT")))
    check_metadata(folder)
    for of, name in ((encodings, "mro"), (encodings, "__class__"), (torch.Size, "numel")):
        path.write_bytes(pickle.dumps(Evil(getattr, of, name)))
        with pytest.raises(CheckpointError, match="would read"):
            check_metadata(folder)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def named(module, name):
    """A pickle that asks for a name."""
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + texts + b"\x93."


def test_nothing_is_run(folder, tmp_path):
    scheduler, marker = CompressionScheduler(nn.Linear(2, 2)), tmp_path / "marker"
    records = "torch.distributed.checkpoint.filesystem"
    evil = [
        pickle.dumps(Evil(os.system, f"touch {marker}")),
        pickle.dumps(Evil(open, str(marker), "w")),
        named(records, "os.system"),
        named(records, "FileSystemReader"),
        named("torch", "load"),
        named("antigravity", "fly"),
    ]
    for raw in evil:
        (folder / ".metadata").write_bytes(raw)
        with pytest.raises(CheckpointError, match="would run .* it is refused"):
            load_distributed(scheduler, folder)
    assert not marker.exists()


def test_entries_are_tensors_that_the_folder_holds(folder):
    scheduler = CompressionScheduler(nn.Linear(2, 2))
    metadata = dcp.FileSystemReader(folder).read_metadata()
    entry = metadata.state_dict_metadata["scheduler.plain"]
    for wrong in (dcp.BytesStorageMetadata(), type(entry)(entry.properties, torch.Size([10**13]), entry.chunks)):
        metadata.state_dict_metadata["scheduler.plain"] = wrong
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))
        with pytest.raises(CheckpointError, match=r"scheduler.plain is no tensor that the folder holds"):
            load_distributed(scheduler, folder)
