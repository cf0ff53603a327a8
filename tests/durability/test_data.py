"""A stranger's data set: pipes are not waited for, and bombs take no memory."""

import gzip
import io
import os
import struct
import zlib

import pytest
import torch
from PIL import Image

from potstill.models.datasets import DatasetError, load_dataset
from potstill.models.datasets.idx import read_idx
from potstill.models.datasets.sources import file_shape, read_image


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (file_shape, lambda path: read_image(path, (3, 8, 8))):
        with pytest.raises(DatasetError, match=r"a.png: not a readable image \(it is no regular file\)"):
            read(tmp_path / "a.png")


def test_a_device_is_no_batch_of_cifar10(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match="data_batch_1: is no regular file"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(("count", "rows", "what"), [(2**31, 2**31, "far more"), (10, 28, "more bytes")])
def test_a_bomb_is_not_unpacked(tmp_path, count, rows, what):
    """What its header does not speak of is left packed, and what it speaks of must be possible."""
    packed = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, count, rows, 28) + bytes(2**24))
    (tmp_path / "images.gz").write_bytes(packed)
    with pytest.raises(DatasetError, match=what):
        read_idx(tmp_path / "images.gz", 3)


def test_an_enormous_image_is_refused_by_its_header(tmp_path):
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "png")
    raw = bytearray(picture.getvalue())
    raw[16:24] = struct.pack(">2I", 60_000, 60_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(DatasetError, match="exceeds limit"):
        file_shape(tmp_path / "a.png")


def test_names_with_escapes_are_one_line(tmp_path):
    folder = tmp_path / "train" / "a\n\x1b[31m"
    folder.mkdir(parents=True)
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError) as caught:
        load_dataset("imagefolder", tmp_path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_sizes_are_read_as_they_are(tmp_path):
    data = torch.arange(2 * 3 * 4, dtype=torch.uint8).reshape(2, 3, 4)
    (tmp_path / "x").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(data.flatten().tolist()))
    assert torch.equal(read_idx(tmp_path / "x", 3), data)
