"""`--export`: the thinned network in other formats behind a run, checked, measured, and with what one must know."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch._inductor
from torch import nn

import compress_classifier
from potstill.command.errors import UsageError
from potstill.command.exports import exports, folding, programs, register_export
from potstill.command.exports.registry import _exports
from potstill.command.run.deploy import metadata
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


class Folds(nn.Module):
    """Layers with a norm behind them that they can take over, and two that cannot."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.grouped_norm = nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8, affine=False)
        self.back, self.back_norm = nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6)
        self.shared, self.shared_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.pairs, self.pairs_norm = nn.ConvTranspose2d(6, 6, 2, groups=2), nn.BatchNorm2d(6)
        self.last, self.last_norm = nn.Linear(6, 5), nn.BatchNorm1d(5)
        for norm in (module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)

    def forward(self, x):
        x = self.grouped_norm(self.grouped(self.first_norm(self.first(x)).relu()))
        x = self.shared(self.back_norm(self.back(x)))
        x = self.pairs_norm(self.pairs(self.shared_norm(x) + x))  # x is read twice
        return self.last_norm(self.last(x.mean((2, 3))))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_norms_are_folded_where_a_layer_can_take_them_over(layout):
    model, x = Folds().eval(), torch.randn(3, 3, 9, 9)
    program = folding.folded(model, x)
    module = program.module()
    assert torch.allclose(module(x.contiguous(memory_format=layout)), model(x), atol=1e-5)
    norms = [node for node in module.graph.nodes if node.target is torch.ops.aten.batch_norm.default]
    assert len(norms) == 2  # behind `shared`, and behind a transposed convolution of two groups
    assert not [name for name in program.state_dict if "first_norm" in name]


class Words(nn.Module):
    """A norm whose channels are the words of a sequence, behind a linear layer with as many outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(5, 5), nn.BatchNorm1d(5)
        self.norm.running_mean.normal_()

    def forward(self, x):
        return self.norm(self.layer(x)).flatten(1)


def test_a_norm_over_the_words_of_a_sequence_stays():
    model, x = Words().eval(), torch.randn(3, 5, 5)
    module = folding.fold(programs.exported(model, x))
    assert torch.allclose(module(x), model(x), atol=1e-6)


class Silent(nn.Module):
    def forward(self, x):
        raise NotImplementedError


def test_an_exporter_that_says_nothing_is_told_by_its_kind():
    with pytest.raises(UsageError, match="the network cannot be exported: .+"):
        programs.exported(Silent(), torch.randn(2, 3))


def test_the_faster_layout_is_written(monkeypatch):
    model, x = Folds().eval(), torch.randn(3, 3, 9, 9)
    for times, clones in (([1.0, 2.0], 0), ([2.0, 1.0], 1)):
        monkeypatch.setattr(folding, "alternately", lambda *_, times=times: times)
        targets = [str(node.target) for node in folding.folded(model, x).graph.nodes]
        assert sum("clone" in target or "contiguous" in target for target in targets) == clones


def test_a_network_that_cannot_be_compiled_is_told(monkeypatch, tmp_path):
    def fails(*_, **__):
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fails)
    with pytest.raises(UsageError, match=r"cannot be compiled \(a C\+\+ compiler is needed\): No working C"):
        exports()["compiled"].write(Folds().eval(), torch.randn(3, 3, 9, 9), tmp_path / "x.pt2", {})


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
    held = torch._inductor.aoti_load_package(str(folder / "thinned.compiled.pt2")).get_metadata()
    assert {name: held[name] for name in texts} == texts
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


def test_the_extra_is_named_where_it_brings_what_is_missing(format_of_mine, monkeypatch, tmp_path, capsys):
    format_of_mine(lambda *_: None, needs=("onnx", "onnxruntime"))
    monkeypatch.setattr("potstill.command.exports.registry.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        compress_classifier.main(["-a", "mlp", "--dataset", "digits", "-o", str(tmp_path), "--export", "mine"])
    assert 'needs onnx, onnxruntime: pip install "potstill[onnx]"' in capsys.readouterr().err


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


@pytest.mark.parametrize(("arch", "said"), [("transformers//home/me/vit", "transformers/vit"), ("timm/resnet10t",) * 2])
def test_metadata_tell_no_path_of_the_machine_that_trained(arch, said):
    assert metadata(arch=arch, mean=[0.5]) == {"arch": said, "mean": "[0.5]"}
