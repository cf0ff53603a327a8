"""Networks that are sparse in elements take as few bytes as their content needs, and come back as they were."""

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from potstill.thinning import ThinningError, load, save, thin
from potstill.thinning.packed import pack_zeros, unpack_zeros

SHAPES = [(), (0,), (1,), (7,), (8,), (3, 5), (2, 3, 4, 5)]
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool]


def same(a, b):
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.95, 1.0])
def test_what_was_packed_comes_back(kind, share):
    torch.manual_seed(0)
    tensors = {f"t{i}": ((torch.rand(s) < share) * torch.randn(s) * 9).to(kind) for i, s in enumerate(SHAPES)}
    back = unpack_zeros(pack_zeros(tensors), lambda name: tensors[name].numel())
    assert back.keys() == tensors.keys()
    assert all(same(back[name], tensor) for name, tensor in tensors.items())


def test_what_is_tiny_or_no_number_is_kept_and_a_negative_zero_is_a_zero():
    tensor = torch.zeros(64)
    tensor[3], tensor[9], tensor[60] = -0.0, float("nan"), 1e-45
    packed = pack_zeros({"w": tensor})
    assert packed["w:values"].numel() == 2
    back = unpack_zeros(packed, lambda name: 64)["w"]
    assert back[9].isnan() and back[60] == 1e-45 and int((back != 0).sum()) == 2


def test_dense_tensors_stay_as_they_are():
    assert list(pack_zeros({"w": torch.ones(100), "bits": torch.tensor(3)})) == ["w", "bits"]


def test_names_that_look_like_parts_are_names():
    tensors = {"a:bits": torch.ones(3), "a:values": torch.ones(2), "b:shape": torch.ones(2)}
    assert unpack_zeros(pack_zeros(tensors), lambda name: 9).keys() == tensors.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"w:shape": torch.tensor([1_000_000, 1_000_000])},
        {"w:shape": torch.tensor([2**62, 4])},
        {"w:shape": torch.tensor([-8, -8])},
        {"w:shape": torch.tensor([8.0, 8.0])},
        {"w:shape": torch.tensor([4, 8])},
        {"w:values": torch.ones(5)},
        {"w:values": torch.ones(1, 3)},
        {"w:bits": torch.zeros(8)},
        {"w:shape": torch.ones(100_000, dtype=torch.int64)},
        {"w:values": torch.ones(3, dtype=torch.uint16)},
        {"w": torch.ones(8, 8)},
    ],
)
def test_parts_that_do_not_fit_are_refused(change):
    packed = {**pack_zeros({"w": torch.eye(8)[:, :8] * (torch.arange(8) < 3)}), **change}
    with pytest.raises(ThinningError, match="'w'") as caught:
        unpack_zeros(packed, lambda name: 64)
    assert len(str(caught.value)) < 200


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.fixture(name="stored")
def _stored(tmp_path):
    """A network of which 95 % are 0, thinned and saved; the network is returned too."""
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter *= torch.rand(parameter.shape) < 0.05
    recipe = thin(model, torch.randn(2, 64))
    save(model, recipe, tmp_path / "net.safetensors")
    return model, tmp_path


def test_the_file_is_as_small_as_its_content(stored):
    model, folder = stored
    alive = sum(int((p != 0).sum()) for p in model.parameters())
    elements = sum(p.numel() for p in model.parameters())
    packed = (folder / "net.packed.safetensors").stat().st_size
    assert packed < 4 * alive + elements / 8 + 1500  # 1,500: the header, and biases as they are
    assert packed < (folder / "net.safetensors").stat().st_size / 4


def test_it_is_read_where_the_plain_file_is_not_there(stored):
    model, folder = stored
    (folder / "net.safetensors").unlink()
    loader = importlib.util.spec_from_file_location("loader", folder / "net.py")
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    for name in ("net.safetensors", "net", "net.packed.safetensors"):
        other = load(network(), folder / name)
        assert all(same(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))
    assert all(same(a, b) for a, b in zip(module.load(network()).parameters(), model.parameters(), strict=True))


def test_a_packed_file_of_another_network_is_refused(stored):
    _, folder = stored
    path = folder / "net.packed.safetensors"
    tensors = load_file(path)
    tensors["0.weight:values"][0] += 1
    (folder / "net.safetensors").unlink()
    save_file(tensors, path)
    before = network()
    with pytest.raises(ThinningError, match="damaged, or of another network than the net.json"):
        load(before, path)
    assert all(same(a, b) for a, b in zip(before.parameters(), network().parameters(), strict=True))


def test_a_dense_network_has_no_packed_file_and_takes_an_old_one_away(stored):
    _, folder = stored
    model = network()
    save(model, thin(model, torch.randn(2, 64)), folder / "net.safetensors")
    assert not (folder / "net.packed.safetensors").exists()
    assert "packed_sha256" not in json.loads((folder / "net.json").read_text())
