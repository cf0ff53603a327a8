"""Bad input of every kind: one line that says what and where, exit status 2; `--debug` shows the traceback."""

import shutil

import pytest
import torch
from PIL import Image

import compress_classifier
from potstill.compression import load_checkpoint, save_checkpoint

SMALL = ["-a", "simplenet_cifar", "--limit-train", "64", "--limit-test", "20", "--epochs", "1"]
FOLDER = ["-a", "simplenet_cifar", "--dataset", "imagefolder", "--epochs", "1", "-b", "4", "--vs", "0.3"]


def refusal(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("compress-classifier: ") and said.count("\n") == 1, said
    return said


@pytest.fixture
def images(tmp_path):
    """Six images of each of two classes, in `train` and `test`."""
    for part in ("train", "test"):
        for number, name in enumerate(("ant", "bee")):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (20 + 3 * i, 30), (100 * number, 20 * i, 50)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_images_of_several_sizes_are_fine(images, tmp_path):
    assert compress_classifier.main([*FOLDER, "--data", str(images), "-o", str(tmp_path / "runs")]) == 0


def empty(data):
    shutil.rmtree(data)
    data.mkdir()


def no_images(data):
    for image in data.glob("*/*/*.png"):
        image.unlink()


def one_class(data):
    for part in ("train", "test"):
        shutil.rmtree(data / part / "bee")


def other_classes_in_test(data):
    (data / "test" / "bee").rename(data / "test" / "wasp")


def cut_off(data):
    image = data / "train" / "bee" / "3.png"
    image.write_bytes(image.read_bytes()[:40])


def not_an_image(data):
    (data / "test" / "ant" / "2.png").write_text("text")


def enormous(data):
    """A header of 60,000 x 60,000 pixels."""
    image = data / "train" / "ant" / "0.png"
    raw = bytearray(image.read_bytes())
    raw[16:24] = (60_000).to_bytes(4, "big") * 2
    image.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (empty, "no such folder"),
        (no_images, "no images"),
        (one_class, "two classes"),
        (other_classes_in_test, "wasp"),
        (cut_off, "bee/3.png: not a readable image"),
        (not_an_image, "ant/2.png: not a readable image"),
        (enormous, "ant/0.png: not a readable image"),
    ],
)
def test_data(images, tmp_path, capsys, damage, what):
    damage(images)
    said = refusal([*FOLDER, "--data", images, "-o", tmp_path / "runs"], capsys)
    assert what in said and "data" in said


@pytest.fixture
def run_folder(tmp_path, capsys):
    assert compress_classifier.main([*SMALL, "-o", str(tmp_path / "runs")]) == 0
    capsys.readouterr()
    return (tmp_path / "runs" / "latest").resolve()


@pytest.mark.parametrize("option", ["--resume-from", "--exp-load-weights-from"])
def test_checkpoints_of_something_else(run_folder, images, tmp_path, capsys, option):
    best = run_folder / "best.pt"
    said = refusal(["-a", "resnet20_cifar", option, best], capsys)
    assert "is a checkpoint of simplenet_cifar, not of resnet20_cifar" in said
    said = refusal([*FOLDER, "--data", images, option, best, "-o", tmp_path], capsys)
    assert "imagefolder has 2 classes and the model 10" in said


def changed(run_folder, tmp_path, change):
    """A checkpoint whose contents were changed."""
    contents = load_checkpoint(run_folder / "thinned.pt")
    change(contents)
    save_checkpoint(tmp_path / "changed.pt", contents)
    return tmp_path / "changed.pt"


def renamed_layer(contents):
    state = contents["state_dict"]
    state["head.weight"] = state.pop("fc3.weight")


def missing_layer(contents):
    del contents["state_dict"]["fc2.bias"]


def wider_layer(contents):
    contents["state_dict"]["fc1.weight"] = torch.zeros(200, 400)


def layers_that_do_not_meet(contents):
    contents["state_dict"]["conv1.weight"] = contents["state_dict"]["conv1.weight"][:4]


def not_finite(contents):
    contents["state_dict"]["conv1.weight"][0] = torch.inf


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (renamed_layer, "head.weight"),
        (missing_layer, "fc2.bias"),
        (wider_layer, "'fc1.weight' is [200, 400]"),
        (layers_that_do_not_meet, "the network, as its file describes it"),
        (not_finite, "state_dict.conv1.weight: has values that are not finite"),
    ],
)
def test_a_thinned_checkpoint_whose_class_changed(run_folder, tmp_path, capsys, change, what):
    path = changed(run_folder, tmp_path, change)
    for option in ("--resume-from", "--exp-load-weights-from"):
        said = refusal([*SMALL, option, path, "-o", tmp_path / "more"], capsys)
        assert what in said and str(path) in said


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--compress", "{folder}"], "{folder}"),
        (["--resume-from", "{folder}/run.log"], "run.log: not a checkpoint"),
        (["--resume-from", "{folder}/thinned.safetensors"], "thinned.safetensors: not a checkpoint"),
        (["--import-distiller", "{folder}"], "{folder}"),
        (["--import-distiller", "{folder}/missing.pt"], "missing.pt: No such file"),
        (["--import-distiller", "{folder}/run.log"], "run.log: not a checkpoint written by torch"),
        (["--import-distiller", "{folder}/best.pt"], "best.pt: one of our own checkpoints: read it with --resume-from"),
        (["--checkpoint-every", "0"], "neither a number of minibatches (200) nor of minutes (10m)"),
        (["--checkpoint-every", "5s"], "'5s' is neither"),
        (["--checkpoint-every=-1m"], "'-1m' is neither"),
        (["--on-nan", "ignore"], "--on-nan"),
        (["--export-onnx", "/nowhere/at/all.onnx"], "/nowhere/at/all.onnx"),
    ],
)
def test_paths_and_options(run_folder, tmp_path, capsys, arguments, what):
    arguments = [argument.format(folder=run_folder) for argument in arguments]
    said = refusal([*SMALL, *arguments, "-o", tmp_path / "more"], capsys)
    assert what.format(folder=run_folder) in said


def test_debug_shows_the_traceback(run_folder):
    with pytest.raises(ValueError, match="not a checkpoint"):
        compress_classifier.main([*SMALL, "--resume-from", str(run_folder / "run.log"), "--debug"])
