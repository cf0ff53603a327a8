"""Checkpoints in the forms that Distiller and torch wrote over the years, for each of its networks."""

from collections import OrderedDict

import pytest
import torch

import compress_classifier
from potstill.command.migration.distiller_checkpoint import converted
from potstill.compression import CheckpointError, load_checkpoint
from potstill.models import create_model, model_info, model_names
from potstill.thinning import ThinningError

OURS = [name for name in model_names() if model_info(name).source == "potstill"]
SMALL = [name for name in OURS if "_cifar" in name or "_mnist" in name]
QUICK = ["mnasnet0_5", "mobilenet", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1"]
IMAGENET = [
    *("alexnet", "alexnet_bn", "densenet121", "googlenet", "inception_v3", "mnasnet1_0", "mobilenet_050"),
    *("preact_resnet18", "preact_resnet50", "resnet18", "resnet50", "resnext101_32x4d", "vgg11_bn", "vgg19"),
]
LAYOUTS = pytest.mark.parametrize("zipped", [False, True], ids=["torch 1.3", "torch 1.6"])


def old(model):
    """The state dict as DataParallel named it, inside too, before BatchNorm counted its batches."""
    return OrderedDict(
        (f"module.{name}".replace("module.features.", "module.features.module."), tensor)
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


def arrives(contents, model):
    """Whether all that the model holds is in the imported state dict, and its batch counts are 0."""
    state = contents["state_dict"]
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        expected = torch.zeros_like(tensor) if name.endswith("num_batches_tracked") else tensor
        assert torch.equal(state[name], expected), name


@pytest.mark.parametrize("arch", [*SMALL, *QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in IMAGENET)])
def test_weights_from_before_batches_were_counted(arch):
    model = create_model(arch)
    contents, thinned = converted({"state_dict": old(model), "arch": arch.upper(), "epoch": 3}, "resnet20_cifar")
    arrives(contents, model)
    assert not thinned and contents["arch"] == arch and contents["num_classes"] == model_info(arch).num_classes


def test_trained_googlenet_without_auxiliary_classifiers(caplog):
    model = create_model("googlenet")
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("aux")}
    contents, _ = converted({"state_dict": state}, "googlenet")
    assert all(torch.equal(contents["state_dict"][name], tensor) for name, tensor in state.items())
    assert "auxiliary classifiers" in caplog.text


@pytest.fixture(scope="module")
def trained():
    model = create_model("resnet20_cifar")
    model(torch.randn(8, 3, 32, 32))  # running statistics other than 0 and 1
    return model


def whole(model):
    return {"epoch": 179, "arch": "resnet20_cifar", "state_dict": old(model), "best_top1": 91.0}


def sparse(model):
    """Masks as Distiller's scheduler gives them, under DataParallel's names."""
    masks = {f"module.{name}": None for name, _ in model.named_parameters()}
    masks["module.layer1.0.conv1.weight"] = torch.ones(16, 16, 3, 3)
    masks["module.layer1.0.conv1.weight"][3] = 0
    return whole(model) | {"compression_sched": {"masks_dict": masks}}


def half(model):
    return {"state_dict": {name: tensor.half() for name, tensor in old(model).items()}, "arch": "resnet20_cifar"}


FORMS = {
    "whole": whole,
    "with masks": sparse,
    "without a scheduler": lambda model: whole(model) | {"compression_sched": None},
    "without an epoch": lambda model: {"arch": "resnet20_cifar", "state_dict": old(model)},
    "empty fields": lambda model: {"epoch": None, "arch": None, "dataset": None, "state_dict": old(model)},
    "a state dict alone": old,
    "of this torch": lambda model: model.state_dict() | {},
}


@LAYOUTS
@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
@pytest.mark.parametrize("form", FORMS)
def test_files(tmp_path, monkeypatch, trained, form, place, zipped, capsys):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: place)  # as if written there
    path = tmp_path / "net.pth.tar"
    torch.save(FORMS[form](trained), path, _use_new_zipfile_serialization=zipped)
    monkeypatch.undo()
    command = ["--import-distiller", str(path), "-a", "resnet20_cifar", "-o", str(tmp_path)]
    assert compress_classifier.main(command) == 0
    said = capsys.readouterr().out
    imported = load_checkpoint(tmp_path / "net_imported.pt")
    if form == "of this torch":
        assert all(torch.equal(imported["state_dict"][n], t) for n, t in trained.state_dict().items())
    else:
        arrives(imported, trained)
    named = form in ("whole", "with masks", "without a scheduler")
    assert imported["epoch"] == (180 if named else 0) and ("after epoch 179" in said) == named
    masks = imported["scheduler"]["masks"]["masks"]
    if form == "with masks":
        assert not masks.pop("layer1.0.conv1.weight")["distiller"]["mask"][3].any()
    assert not masks


def test_weights_in_half_precision(trained):
    contents, _ = converted(half(trained), "")
    for name, tensor in contents["state_dict"].items():
        assert tensor.dtype == trained.state_dict()[name].dtype
        if tensor.is_floating_point():
            assert torch.equal(tensor, trained.state_dict()[name].half().float()), name


@LAYOUTS
def test_thinned_with_its_masks(tmp_path, trained, zipped, capsys):
    state, kept = old(trained), [0, 2, 3, 5, 8]
    for name in list(state):
        if name.startswith(("module.layer2.1.conv1", "module.layer2.1.bn1")):
            state[name] = state[name][kept].clone()
    state["module.layer2.1.conv2.weight"] = state["module.layer2.1.conv2.weight"][:, kept].clone()
    masks = {"module.layer2.1.conv2.weight": (state["module.layer2.1.conv2.weight"] > 0).float()}
    contents = whole(trained) | {"state_dict": state, "compression_sched": {"masks_dict": masks}}
    torch.save(contents, tmp_path / "thin.pth.tar", _use_new_zipfile_serialization=zipped)
    assert compress_classifier.main(["--import-distiller", str(tmp_path / "thin.pth.tar"), "-o", str(tmp_path)]) == 0
    assert "it is thinned" in capsys.readouterr().out
    imported = load_checkpoint(tmp_path / "thin_imported.pt")
    assert imported["state_dict"]["layer2.1.bn1.running_mean"].shape == (5,)
    mask = imported["scheduler"]["masks"]["masks"]["layer2.1.conv2.weight"]["distiller"]["mask"]
    assert torch.equal(mask, masks["module.layer2.1.conv2.weight"] != 0)


def test_classes_are_those_of_the_weights():
    model = create_model("resnet18", num_classes=7)
    contents, thinned = converted({"state_dict": old(model), "arch": "resnet18"}, "")
    assert contents["num_classes"] == 7 and not thinned


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"state_dict": {"fc.bias": torch.ones(10), "module.fc.bias": torch.ones(10)}}, "stands twice"),
        ({"state_dict": {}}, "missing"),
        ({"epoch": 3}, "state_dict: is missing"),
        ({"fc.bias": torch.ones(10)}, "of another model: missing"),
        ({"arch": 3, "state_dict": {}}, "arch: expected a text"),
    ],
)
def test_what_is_none_is_refused(contents, message):
    with pytest.raises((CheckpointError, ThinningError), match=message):
        converted(contents, "resnet20_cifar")


def test_a_pickled_network_tells_the_way_out(tmp_path, trained, capsys):
    torch.save(trained, tmp_path / "a.pt")
    with pytest.raises(SystemExit):
        compress_classifier.main(["--import-distiller", str(tmp_path / "a.pt")])
    assert "state_dict" in capsys.readouterr().err
