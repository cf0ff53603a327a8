"""`--export`: the thinned network in other formats behind a run, checked, measured, and with what one must know."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import compress_classifier
from potstill.command.exports import exports, register_export
from potstill.command.exports.registry import _exports
from potstill.models import create_model
from potstill.models.datasets import load_dataset
from potstill.thinning import load

SCHEDULE = """
pruners:
  half: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [layers.1.weight]}
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run with all formats."""
    out = tmp_path_factory.mktemp("out")
    (out / "half.yaml").write_text(SCHEDULE)
    given = ["-a", "mlp", "--dataset", "digits", "--epochs", "1", "--compress", str(out / "half.yaml")]
    assert compress_classifier.main([*given, "-o", str(out), "--export", "all"]) == 0
    return out / "latest"


@pytest.fixture(scope="module")
def thinned(folder):
    return load(create_model("mlp"), folder / "thinned.safetensors")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", input_shape=(1, 28, 28)).test


def accuracy(run, digits):
    right = sum(int((run(images).argmax(1) == labels).sum()) for images, labels in digits.batches(16))
    return 100 * right / len(digits)


def in_onnxruntime(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


@pytest.mark.parametrize("batch", [1, 5])
def test_files_compute_what_the_thinned_network_computes(folder, thinned, batch):
    images = torch.randn(batch, 1, 28, 28)
    expected = thinned(images).detach()
    program = torch.export.load(folder / "thinned.pt2").module()
    torch.testing.assert_close(program(images), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_onnxruntime(folder / "thinned.onnx")(images), expected, rtol=1e-4, atol=1e-4)


def test_int8_is_int8_and_its_accuracy_is_that_of_the_file(folder, digits):
    graph = onnx.load(folder / "thinned.int8.onnx").graph
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    assert sum(array.dtype == np.int8 and array.ndim == 2 for array in weights) == 4
    assert not any(array.dtype == np.float32 and array.ndim == 2 for array in weights)
    stated = json.loads((folder / "summary.json").read_text())["exports"]
    for name, file in (("int8", "thinned.int8.onnx"), ("onnx", "thinned.onnx")):
        assert stated[name]["top1"] == pytest.approx(accuracy(in_onnxruntime(folder / file), digits))
        assert stated[name]["bytes"] == (folder / file).stat().st_size
    assert stated["int8"]["difference"] > 1e-3 > stated["onnx"]["difference"]


def test_files_say_what_they_hold(folder):
    texts = {entry.key: entry.value for entry in onnx.load(folder / "thinned.onnx").metadata_props}
    extra = {"metadata.json": ""}
    torch.export.load(folder / "thinned.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"]) == texts
    assert json.loads(texts["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(texts["input_shape"]) == [1, 28, 28]
    assert texts["recipe_sha256"] == hashlib.sha256((folder / "recipe.json").read_bytes()).hexdigest()


def test_a_link_under_the_name_is_replaced_and_not_followed(folder, tmp_path):
    stranger = tmp_path / "stranger"
    shutil.copytree(folder.resolve(), stranger)
    (tmp_path / "victim").write_text("mine")
    for name in ("thinned.onnx", "thinned.pt2", "thinned.int8.onnx"):
        (stranger / name).unlink()
        (stranger / name).symlink_to(tmp_path / "victim")
    assert compress_classifier.main(["--resume-from", str(stranger), "--epochs", "2", "--export", "onnx,pt2"]) == 0
    assert (tmp_path / "victim").read_text() == "mine"
    assert (stranger / "thinned.onnx").stat().st_size > 1000 and not (stranger / "thinned.onnx").is_symlink()


@pytest.fixture
def format_of_mine(monkeypatch):
    """Register a format for one test."""
    monkeypatch.setattr("potstill.command.exports.registry._exports", dict(_exports))

    def enter(write, **settings):
        register_export("mine", "model.mine", help="in my own format", **settings)(write)

    return enter


def test_a_file_that_computes_something_else_is_refused_behind_the_run(format_of_mine, tmp_path, capsys):
    def write(model, example, path, metadata):
        path.write_text("x")
        return lambda images: model(images) + 1

    format_of_mine(write)
    given = ["-a", "mlp", "--dataset", "digits", "--epochs", "0", "-o", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        compress_classifier.main([*given, "--export", "mine"])
    said = capsys.readouterr()
    assert "the run is complete, but:" in said.out + said.err and "computes something else" in said.out + said.err
    assert not (tmp_path / "latest" / "thinned.mine").exists() and (tmp_path / "latest" / "summary.json").exists()


def test_packages_that_are_missing_are_told_before_a_run(format_of_mine, tmp_path, capsys):
    format_of_mine(lambda *_: None, needs=("no_such_package",))
    with pytest.raises(SystemExit, match="2"):
        compress_classifier.main(["-a", "mlp", "--dataset", "digits", "-o", str(tmp_path), "--export", "mine"])
    assert "needs no_such_package: pip install no_such_package" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        compress_classifier.main(["-a", "mlp", "--export", "pt2,onxn"])
    assert "no format 'onxn' (did you mean onnx?)" in capsys.readouterr().err


def test_formats_are_those_of_the_help(capsys):
    assert {"onnx", "pt2", "int8"} <= set(exports())
    with pytest.raises(SystemExit):
        compress_classifier.main(["--help"])
    told = capsys.readouterr().out
    assert "--export-pt2" in told and "--export-int8" not in told
