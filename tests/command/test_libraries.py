"""Networks of timm and transformers by `--arch`, and images of other sizes, from the first line to the export."""

import csv
import json
import os
import sys
from importlib.util import find_spec

import pytest
import torch

import compress_classifier
from potstill.command.cli.options import parse
from potstill.compression import load_checkpoint, save_checkpoint
from potstill.models import ModelError, create_model, model_info
from potstill.models.transformers_configs import plain_data, read_config
from potstill.thinning import load, read_about

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
TINY = ["--limit-train", "48", "--limit-test", "20", "--limit-validation", "16", "-b", "24", "--lr", "0.02"]
SCHEDULE = """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, group_type: 3D, weights: ["%s"]}
policies:
  - {pruner: {instance_name: filters}, epochs: [0]}
"""


def refused(arguments, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        compress_classifier.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1, said
    return said


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder of a tiny ViT with weights for three classes."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=3)
    folder = tmp_path_factory.mktemp("models") / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    images = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.4], "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return folder


@pytest.fixture(scope="module")
def of_timm(tmp_path_factory):
    """A pruned and thinned run of a network of timm's, on smaller images than its own."""
    pytest.importorskip("timm")
    out = tmp_path_factory.mktemp("timm")
    (out / "s.yaml").write_text(SCHEDULE % "layer1.0.conv1.weight")
    net = ["-a", "timm/test_resnet", "--input-size", "32x48", "--compress", str(out / "s.yaml"), "--epochs", "1"]
    assert compress_classifier.main([*net, *TINY, "-o", str(out)]) == 0
    return out / "latest"


@pytest.fixture(scope="module")
def of_transformers(vit, tmp_path_factory):
    """The same of the ViT, whose hidden units of the MLP go."""
    out = tmp_path_factory.mktemp("transformers")
    (out / "s.yaml").write_text(SCHEDULE % "*intermediate.dense.weight")
    names = [name for name, _ in create_model(f"transformers/{vit}").named_parameters()]
    if not any("intermediate.dense" in name for name in names):  # as transformers 5 calls them
        (out / "s.yaml").write_text(SCHEDULE % next(n for n in names if n.endswith("fc1.weight")))
    net = ["-a", f"transformers/{vit}", "--pretrained", "--compress", str(out / "s.yaml"), "--epochs", "1"]
    assert compress_classifier.main([*net, *TINY, "-o", str(out)]) == 0
    return out / "latest"


@needs_timm
def test_a_network_of_timm_is_pruned_thinned_and_stored(of_timm):
    stored = load_checkpoint(of_timm / "thinned.pt")
    assert stored["arch"] == "timm/test_resnet" and stored["input_shape"] == [3, 32, 48]
    assert stored["mean"] == stored["std"] == [0.5, 0.5, 0.5]  # timm's, of this network
    assert stored["classes"] == [str(digit) for digit in range(10)]
    dense = create_model("timm/test_resnet", 10).state_dict()["layer1.0.conv1.weight"]
    assert stored["state_dict"]["layer1.0.conv1.weight"].shape[0] == len(dense) // 2
    known = read_about(of_timm / "thinned.safetensors")
    assert known == {name: stored[name] for name in ("arch", "input_shape", "mean", "std", "classes")}
    model = create_model(known["arch"], len(known["classes"]), input_size=known["input_shape"][1:])
    images = torch.randn(2, *known["input_shape"])
    assert load(model, of_timm / "thinned.safetensors")(images).shape == (2, 10)


@needs_timm
def test_a_checkpoint_brings_its_network_back(of_timm, tmp_path, capsys):
    told = []
    for path in (of_timm, of_timm / "checkpoint.pt", of_timm / "thinned.pt"):
        capsys.readouterr()
        assert compress_classifier.main(["--resume-from", str(path), "-e", *TINY, "-o", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "images resized from 8x8 to 32x48" in out
        told += [line for line in out.splitlines() if line.startswith("test ==>")]
    assert len(told) == 3 and len({*told}) == 1


@needs_timm
def test_what_is_shown_of_a_network_of_timm(of_timm, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--summary", "compute", "--summary", "params", "-a", "timm/test_resnet", "--input-size", "32"]
    assert compress_classifier.main(asked) == 0
    out = capsys.readouterr().out
    assert "layer1.0.conv1.weight" in out and "(3, 32, 32)" in out
    plan = ["--dry-run", "-a", "timm/test_resnet", "--input-size", "32", "--compress", str(of_timm / "schedule.yaml")]
    assert compress_classifier.main(plan) == 0
    assert "layer1.0.conv1.weight" in capsys.readouterr().out
    sense = ["--sense", "filter", "--sense-range", "0", "0.6", "0.5", "--sense-weights", "layer1.*conv1.weight"]
    assert compress_classifier.main(["--resume-from", str(of_timm), *sense, "--sense-folder", str(tmp_path)]) == 0
    assert len(list(csv.DictReader((tmp_path / "sensitivity.csv").open()))) == 2


@needs_transformers
def test_a_network_of_transformers_needs_its_folder_no_more(of_transformers, vit, tmp_path, capsys):
    stored = load_checkpoint(of_transformers / "checkpoint.pt")
    assert stored["arch"] == f"transformers/{vit}" and stored["config"]["hidden_size"] == 16
    assert stored["input_shape"] == [3, 16, 16] and stored["mean"] == [0.1, 0.2, 0.3] and stored["num_classes"] == 10
    gone = {**stored, "arch": f"transformers/{tmp_path}/gone"}
    save_checkpoint(tmp_path / "x.pt", gone)
    assert compress_classifier.main(["--resume-from", str(tmp_path / "x.pt"), "-e", *TINY, "-o", str(tmp_path)]) == 0
    assert "test ==> Top1" in capsys.readouterr().out
    assert compress_classifier.main(["--resume-from", str(of_transformers), "--epochs", "2"]) == 0
    assert load_checkpoint(of_transformers / "checkpoint.pt")["epoch"] == 2
    known = read_about(of_transformers / "thinned.safetensors")
    model = create_model("transformers/nowhere", 10, config=known["config"])
    assert load(model, of_transformers / "thinned.safetensors")(torch.randn(2, 3, 16, 16)).logits.shape == (2, 10)


@needs_transformers
def test_weights_of_a_folder_are_taken_when_asked_for(vit, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    weights = transformers.ViTForImageClassification.from_pretrained(vit).state_dict()
    for classes in (3, 10):
        state = create_model(f"transformers/{vit}", classes, pretrained=True).state_dict()
        same = [name for name, tensor in weights.items() if torch.equal(state[name], tensor)]
        assert len(same) >= len(weights) - (2 if classes == 10 else 0)
    arguments = ["-a", f"transformers/{vit}", *TINY, "--epochs", "0", "-o", str(tmp_path)]
    assert compress_classifier.main(arguments) == 0
    assert "are not used: --pretrained begins with them" in capsys.readouterr().out
    said = refused(["-a", f"transformers/{vit}", "--pretrained", "--input-size", "32", "-o", tmp_path], capsys)
    assert "do not fit its config at images of 3x32x32" in said and "would be random" in said
    (vit / "model.safetensors").rename(tmp_path / "kept")
    try:
        (vit / "pytorch_model.bin").write_bytes(b"")
        assert "pickled ones, which could run code" in refused(["-a", f"transformers/{vit}", "--pretrained"], capsys)
    finally:
        (vit / "pytorch_model.bin").unlink()
        (tmp_path / "kept").rename(vit / "model.safetensors")


@needs_transformers
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**6}, "larger network than the one whose weights are here"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' of 1000000000: 16,777,216 at most"),
        ({"hidden_size": 2**15, "intermediate_size": 2**15}, "larger network than the one whose weights are here"),
        ({"model_type": "bert"}, "is no image classifier"),
        ({"model_type": "timm_wrapper"}, "which transformers does not build here"),
        ({"model_type": [1]}, "which transformers does not build here"),
        ({"num_attention_heads": 0}, "cannot be built"),
        ({"hidden_act": "\x1b[31m"}, "cannot be built"),
    ],
)
def test_a_strangers_config_is_checked(of_transformers, tmp_path, capsys, change, message):
    stored = load_checkpoint(of_transformers / "checkpoint.pt")
    save_checkpoint(tmp_path / "x.pt", {**stored, "config": {**stored["config"], **change}})
    said = refused(["--resume-from", tmp_path / "x.pt", "-e"], capsys)
    assert message in said and "\x1b" not in said


@needs_transformers
def test_nothing_of_a_config_can_run_code(of_transformers):
    plain = load_checkpoint(of_transformers / "checkpoint.pt")["config"]
    odd = {"auto_map": {"AutoConfig": "x.Y"}, "_attn_implementation": "a/b", "attn_implementation": "a/b"}
    info = model_info("transformers/x", {**plain, **odd, "dtype": "half"})
    assert info.config == plain
    with pytest.raises(ValueError, match="something else than numbers"):
        model_info("transformers/x", {**plain, "hidden_size": torch.zeros(2)})


@needs_transformers
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**6}, "larger network than the one whose weights are here, and than 268,435,456"),
        ({"hidden_size": 2**15, "intermediate_size": 2**15}, "larger network than the one whose weights are here"),
        ({"hidden_size": 10**12}, "'hidden_size' of 1000000000000: 16,777,216 at most"),
        ({"image_size": 2**20}, "images of 3 channels and sides of 1048576 and 1048576: 1024 and 1024 at most"),
        ({"num_channels": 2**20}, "images of 1048576 channels and sides of 16 and 16"),
        ({"num_channels": [3]}, "num_channels"),
        ({"hidden_act": {"model_type": "timm_wrapper", "architecture": "hf-hub:a/b"}}, "does not build here"),
    ],
)
def test_a_strangers_folder_is_bounded(vit, tmp_path, capsys, change, message):
    """A folder with a config of 300 bytes takes no memory, though nothing is there that explains its size."""
    config = json.loads((vit / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    said = refused(["-a", f"transformers/{tmp_path}", "--dataset", "digits"], capsys)
    assert message in said and "None" not in said


@needs_transformers
def test_parts_of_a_config_run_no_code_either(tmp_path):
    """Kernels of a hub are code; a config may name them for a part of the network too."""
    odd = {"attn_implementation": "a/b", "_attn_implementation_internal": "a/b", "hidden_size": 32}
    found = plain_data({"vision_config": odd, "parts": [odd]}, "x")
    assert found == {"vision_config": {"hidden_size": 32}, "parts": [{"hidden_size": 32}]}
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match="no such file"):
        read_config(tmp_path / "config.json")


@needs_timm
def test_onnx_knows_classes_and_images(of_timm, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    file = tmp_path / "model.onnx"
    assert compress_classifier.main(["--resume-from", str(of_timm), "--export-onnx", str(file)]) == 0
    found = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    for name, value in read_about(of_timm / "thinned.safetensors").items():
        assert (found[name] if name == "arch" else json.loads(found[name])) == value


@needs_transformers
def test_onnx_of_a_network_of_transformers(of_transformers, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    arguments = ["--resume-from", str(of_transformers), "--export-onnx", str(tmp_path / "m.onnx")]
    assert compress_classifier.main(arguments) == 0
    assert "difference to the network, relative" in capsys.readouterr().out
    arguments[2:] = ["--export-pt2", str(tmp_path / "m.pt2")]
    assert compress_classifier.main(arguments) == 0
    assert "difference to the network, relative" in capsys.readouterr().out


def test_other_classes_are_told(tmp_path, capsys):
    net = ["-a", "mlp", *TINY, "--epochs", "1", "-o", str(tmp_path)]
    assert compress_classifier.main(net) == 0
    stored = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")
    save_checkpoint(tmp_path / "x.pt", {**stored, "classes": ["\x1b[31m" * 50, *stored["classes"][1:]]})
    capsys.readouterr()
    assert compress_classifier.main(["--resume-from", str(tmp_path / "x.pt"), "-e", *TINY, "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "the classes are others than the checkpoint's: one is '0', which was '" in out and "\x1b" not in out
    save_checkpoint(tmp_path / "x.pt", {**stored, "classes": ["one"]})
    said = refused(["--resume-from", tmp_path / "x.pt", "-e", "-o", tmp_path], capsys)
    assert "classes: expected 10 names of classes" in said


def test_sizes_of_images(tmp_path, capsys):
    net = ["-a", "resnet20_cifar", *TINY, "--input-size", "16", "--epochs", "0", "-o", str(tmp_path)]
    assert compress_classifier.main(net) == 0
    assert load_checkpoint(tmp_path / "latest" / "checkpoint.pt")["input_shape"] == [3, 16, 16]
    capsys.readouterr()
    assert compress_classifier.main(["--resume-from", str(tmp_path / "latest"), "-e", "--input-size", "24"]) == 0
    assert "images resized from 8x8 to 24x24" in capsys.readouterr().out
    assert "mlp does not run on images of 1x20x20" in refused(["-a", "mlp", "--input-size", "20"], capsys)
    for wrong in ("0", "x", "20x", "2000", "1x2x3", "-1", "２"):
        assert "is no size, such as 224 or 224x160" in refused([f"--input-size={wrong}"], capsys)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/nothing", "timm has no network 'nothing'"),
        ("timm/test_vi", "did you mean"),
        ("timm/hf-hub:a/b", "timm has no network 'hf-hub:a/b'"),
    ],
)
@needs_timm
def test_names_that_timm_does_not_know(capsys, name, message):
    assert message in refused(["-a", name], capsys)


@needs_transformers
def test_folders_that_hold_no_image_classifier(tmp_path, capsys):
    assert "needs the folder of an image classifier" in refused(["-a", "transformers/"], capsys)
    assert "config.json: no such file" in refused(["-a", f"transformers/{tmp_path}"], capsys)
    for text, message in (
        ("{", "cannot be read"),
        ("[]", "holds no mapping"),
        ("{}", "which transformers does not build here"),
        ('{"model_type": "bert"}', "is no image classifier"),
    ):
        (tmp_path / "config.json").write_text(text)
        assert message in refused(["-a", f"transformers/{tmp_path}"], capsys)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_library_that_is_missing_is_named(monkeypatch, capsys, library):
    monkeypatch.setitem(sys.modules, library, None)  # what an import that must not happen meets
    monkeypatch.setattr("potstill.command.cli.option_types.find_spec", lambda name: None)
    said = refused(["-a", f"{library}/x"], capsys)
    assert f'{library} is not installed: pip install "potstill[{library}]"' in said
    assert parse([]).data.arch == "resnet20_cifar"
