"""Distiller's checkpoints: read without running their pickles, whatever torch wrote them."""

import pickle
import sys
from collections import OrderedDict, namedtuple
from types import ModuleType

import pytest
import torch

import compress_classifier
from potstill.command.migration.distiller_pickle import MAGIC, read_pickled
from potstill.compression import CheckpointError, load_checkpoint
from potstill.models import create_model

FORMATS = pytest.mark.parametrize("zipped", [False, True], ids=["torch 1.3", "torch 1.6"])


@pytest.fixture
def distiller(monkeypatch):
    """Distiller's classes, as long as the file is written; reading must not need them."""
    module = ModuleType("distiller.thinning")
    module.ThinningRecipe = namedtuple("ThinningRecipe", ["modules", "parameters"])
    module.ThinningRecipe.__module__ = "distiller.thinning"
    module.ThinningRecipe.__qualname__ = "ThinningRecipe"
    monkeypatch.setitem(sys.modules, "distiller", ModuleType("distiller"))
    monkeypatch.setitem(sys.modules, "distiller.thinning", module)
    return module


def checkpoint(distiller, model, masks, **more):
    state = OrderedDict(("module." + name, tensor) for name, tensor in model.state_dict().items())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 41,
        "arch": "simplenet_cifar",
        "dataset": "cifar10",
        "is_parallel": True,
        "state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
        "optimizer_type": torch.optim.SGD,
        "compression_sched": {"masks_dict": masks},
        "thinning_recipes": [distiller.ThinningRecipe({"conv1": {"out_channels": 4}}, {"conv1.weight": [(0, [1, 2])]})],
        "extras": {"current_top1": 71.5, "best_top1": 72.0, "best_epoch": 40},
        **more,
    }


def written(path, contents, zipped, monkeypatch):
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    for name in ("distiller", "distiller.thinning"):
        monkeypatch.delitem(sys.modules, name)
    return path


@FORMATS
def test_weights_masks_and_epoch_arrive(tmp_path, monkeypatch, distiller, zipped, capsys):
    model = create_model("simplenet_cifar")
    whole = torch.ones(6, 1, 1, 1)
    whole[2] = 0
    masks = {name: None for name, _ in model.named_parameters()}
    masks["conv1.weight"] = whole.expand(6, 3, 5, 5)  # as Distiller's masks of structures are
    masks["fc1.weight"] = (torch.rand(120, 400) > 0.5).float()
    contents = checkpoint(distiller, model, masks)
    path = written(tmp_path / "net_best.pth.tar", contents, zipped, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert compress_classifier.main(["--import-distiller", str(path)]) == 0
    assert "simplenet_cifar after epoch 41, 2 masks" in capsys.readouterr().out
    assert "distiller" not in sys.modules

    imported = load_checkpoint(tmp_path / "runs" / "net_best_imported.pt")
    assert imported["epoch"] == 42
    for name, tensor in model.state_dict().items():
        assert torch.equal(imported["state_dict"][name], tensor), name
    found = imported["scheduler"]["masks"]["masks"]
    assert found.keys() == {"conv1.weight", "fc1.weight"}
    assert all(torch.equal(found[n]["distiller"]["mask"], masks[n] != 0) for n in found)


@FORMATS
def test_going_on_keeps_the_sparsity(tmp_path, monkeypatch, distiller, zipped):
    model = create_model("simplenet_cifar")
    masks = {"fc1.weight": (torch.rand(120, 400) > 0.7).float()}
    path = written(tmp_path / "a.pth.tar", checkpoint(distiller, model, masks), zipped, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert compress_classifier.main(["--import-distiller", str(path)]) == 0
    options = ["-a", "simplenet_cifar", "--limit-train", "64", "--limit-test", "20", "--epochs", "1"]
    resume = ["--resume-from", "runs/a_imported.pt"]
    assert compress_classifier.main([*options, *resume, "--reset-optimizer"]) == 0
    weight = load_checkpoint(tmp_path / "runs" / "latest" / "checkpoint.pt")["state_dict"]["fc1.weight"]
    assert not weight[masks["fc1.weight"] == 0].any() and weight.count_nonzero() > 10_000
    assert compress_classifier.main([*options[:-1], "43", *resume]) == 0
    assert load_checkpoint(tmp_path / "runs" / "latest" / "checkpoint.pt")["epoch"] == 43


@FORMATS
def test_a_thinned_network_has_the_sizes_of_its_weights(tmp_path, monkeypatch, distiller, zipped, capsys):
    model = create_model("simplenet_cifar")
    thin = {**model.state_dict()}
    thin["conv1.weight"], thin["conv1.bias"] = thin["conv1.weight"][:4].clone(), thin["conv1.bias"][:4].clone()
    thin["conv2.weight"] = thin["conv2.weight"][:, :4].clone()
    contents = checkpoint(distiller, model, {}, state_dict=OrderedDict(thin))
    path = written(tmp_path / "thin.pt", contents, zipped, monkeypatch)
    assert compress_classifier.main(["--import-distiller", str(path), "-o", str(tmp_path)]) == 0
    assert "it is thinned" in capsys.readouterr().out
    state = load_checkpoint(tmp_path / "thin_imported.pt")["state_dict"]
    assert state["conv2.weight"].shape == (16, 4, 5, 5)


@FORMATS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "resnet20_cifer"}, "resnet20_cifer"),
        ({"arch": "resnet20_cifar"}, "the state dict is of another model"),
        ({"epoch": "last"}, "epoch: expected a whole number of at least 0 and at most 2147483648, found 'last'"),
        ({"quantizer_metadata": {"type": dict}}, "a quantized network"),
        ({"state_dict": 5}, "state_dict: expected a mapping"),
        ({"compression_sched": {"masks_dict": {"fc1.weight": torch.ones(3)}}}, "expected a tensor of shape [120, 400]"),
        ({"compression_sched": {"masks_dict": {"fc9.weight": torch.ones(3)}}}, "a mask of a parameter that SimpleNet"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, monkeypatch, distiller, zipped, change, message, capsys):
    contents = checkpoint(distiller, create_model("simplenet_cifar"), {}, **change)
    path = written(tmp_path / "a.pt", contents, zipped, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(["--import-distiller", str(path), "-o", str(tmp_path)])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@FORMATS
def test_shared_values_views_and_odd_types(tmp_path, zipped):
    base = torch.arange(12.0)
    flags = torch.ones(2, dtype=torch.bool)
    contents = {
        "state_dict": {"a": base.view(3, 4).t(), "b": base[5:], "c": flags, "d": torch.empty(0)},
        "number": 3,
        "parameter": torch.nn.Parameter(torch.ones(2, 2).half()),
    }
    torch.save(contents, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = read_pickled(tmp_path / "a.pt")
    for name, tensor in contents["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor) and found["state_dict"][name].dtype == tensor.dtype
    assert torch.equal(found["parameter"], contents["parameter"].data)
    assert found["number"] == 3


def legacy(*objects):
    return b"".join(pickle.dumps(item, 2) for item in (MAGIC, 1001, {}, *objects))


class Storage:
    """Pickles as a reference to values that the file does not have."""


def with_storage(path, persistent):
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return persistent if isinstance(item, Storage) else None

    with path.open("wb") as file:
        file.write(legacy())
        Pickler(file, 2).dump({"state_dict": {"w": Storage()}})
        file.write(pickle.dumps(["0"], 2))


@pytest.mark.parametrize(
    ("persistent", "message"),
    [
        (("storage", torch.FloatStorage, "0", "cpu", 2**40, None), "its tensors are larger than the file"),
        (("storage", torch.FloatStorage, "0", "cpu", 4, None), "the values of tensor 0 are of another number"),
        (("storage", torch.FloatStorage, "0", "cpu", -4, None), "a reference to something else"),
        (("module", int, "int.py", "source", None), "a reference to something else"),
        (("storage", int, "0", "cpu", 4, None), "a reference to something else"),
    ],
)
def test_references_to_values_are_checked(tmp_path, persistent, message):
    with_storage(tmp_path / "a.pt", persistent)
    with pytest.raises(CheckpointError, match=message):
        read_pickled(tmp_path / "a.pt")
