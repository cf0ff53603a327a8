"""What the command line does instead of training, and what a run leaves behind."""

import csv
import importlib.util
import json
import re
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torchvision.io import write_png

import compress_classifier
from potstill.compression import load_checkpoint
from potstill.compression.latency.fastest import fastest
from potstill.models import create_model
from potstill.models.datasets import load_dataset
from potstill.thinning import Recipe, load, resize_to, store

SCHEDULE = """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [layer*.conv1.weight]}
policies:
  - {pruner: {instance_name: filters}, epochs: [1]}
"""
SMALL = ["--limit-train", "256", "--limit-test", "60", "--limit-validation", "40", "-b", "64", "--lr", "0.05"]

BLOCKS = ((16, 16, 3), (32, 32, 2), (32, 16, 1), (64, 64, 2), (64, 32, 1))
"""Of resnet20_cifar: width of a block, its inputs, how many blocks there are of the kind."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two epochs."""
    out = tmp_path_factory.mktemp("out")
    (out / "half.yaml").write_text(SCHEDULE)
    schedule = ["--compress", str(out / "half.yaml"), "-o", str(out), "--name", "half", "--plot", "--tensorboard"]
    assert compress_classifier.main(["-a", "resnet20_cifar", *SMALL, *schedule]) == 0
    return out / "latest"


def test_summary(run):
    summary = json.loads((run / "summary.json").read_text())
    dense, masked, thinned = (summary[name] for name in ("dense", "masked", "thinned"))
    sizes = {"parameters", "macs", "bytes", "packed_bytes"}
    assert set(thinned) == sizes | {"top1", "val_top1", "latency_ms", "latency_spread_ms"}
    assert set(thinned["latency_ms"]) == {"1", "64"}
    assert dense["parameters"] == masked["parameters"] == 272_474
    # of each block go half of the first convolution's filters, with their norm, and the second's inputs
    assert dense["parameters"] - thinned["parameters"] == sum(
        count * (width // 2) * (9 * (inputs + width) + 2) for width, inputs, count in BLOCKS
    )
    assert thinned["bytes"] < masked["bytes"]
    assert thinned["macs"] < 0.55 * masked["macs"]
    assert thinned["top1"] == masked["top1"]
    assert summary["max_relative_difference"] <= 1e-5


def test_run_folder(run):
    names = {path.name for path in run.iterdir()}
    assert {"checkpoint.pt", "best.pt", "thinned.pt", "thinned.safetensors", "metrics.csv", "summary.json"} <= names
    assert {"schedule.yaml", "environment.json", "run.log", "recipe.json", "recipe.txt", "report.html"} <= names
    assert {"metrics.png", "metrics.svg", "channels.png", "channels.svg"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert run.resolve().name.startswith("half_")
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert list(rows[0])[:8] == ["epoch", "train_loss", "train_top1", "val_loss", "val_top1", "lr", "zeros", "gone"]
    zeros = sum(count * (width // 2) * (9 * inputs + 2) for width, inputs, count in BLOCKS)
    assert float(rows[1]["zeros"]) == pytest.approx(100 * zeros / 272_474)
    assert float(rows[0]["zeros"]) == float(rows[0]["gone"]) == 0


def test_pruned_weights_are_zero_in_the_checkpoint(run):
    checkpoint = load_checkpoint(run / "checkpoint.pt")
    weight = checkpoint["state_dict"]["layer1.0.conv1.weight"]
    assert int((weight.flatten(1) == 0).all(1).sum()) == 8
    for name in ("layer1.0.bn1.weight", "layer1.0.bn1.bias"):
        assert int((checkpoint["state_dict"][name] == 0).sum()) == 8


def test_thinned_weights_load_into_the_bare_class(run):
    """The thinned network, from its weights alone, answers as the masked one."""
    masked = create_model("resnet20_cifar")
    masked.load_state_dict(load_checkpoint(run / "checkpoint.pt")["state_dict"])
    weights = load_file(run / "thinned.safetensors")
    thinned = create_model("resnet20_cifar")
    resize_to(thinned, weights)
    thinned.load_state_dict(weights)
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected, found = masked.eval()(images), thinned.eval()(images)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5
    assert thinned.layer1[0].conv1.out_channels == 8


def test_evaluate_and_resume_a_thinned_checkpoint(run, tmp_path, capsys):
    more = ["-a", "resnet20_cifar", *SMALL, "-o", str(tmp_path)]
    assert compress_classifier.main([*more, "--resume-from", str(run / "thinned.pt"), "-e"]) == 0
    told = capsys.readouterr().out
    top1 = json.loads((run / "summary.json").read_text())["thinned"]["top1"]
    assert f"test ==> Top1: {top1:.3f}" in told
    assert compress_classifier.main([*more, "--resume-from", str(run / "thinned.pt"), "--epochs", "3"]) == 0
    assert "(8, 16, 3, 3)" in capsys.readouterr().out


def test_thinnify(run, tmp_path, capsys):
    more = ["-a", "resnet20_cifar", *SMALL, "-o", str(tmp_path)]
    assert compress_classifier.main([*more, "--resume-from", str(run / "checkpoint.pt"), "--thinnify"]) == 0
    (folder,) = tmp_path.iterdir()  # and no link `latest`: there is nothing to go on with
    mine = json.loads((folder / "summary.json").read_text())
    theirs = json.loads((run / "summary.json").read_text())
    assert mine["thinned"]["parameters"] == theirs["thinned"]["parameters"]


def test_thinnify_to_multiples(run, tmp_path):
    """Half of 16 filters are dead: with multiples of 7, 14 stay."""
    more = ["-a", "resnet20_cifar", *SMALL, "-o", str(tmp_path), "--round-to", "7"]
    assert compress_classifier.main([*more, "--resume-from", str(run / "checkpoint.pt"), "--thinnify"]) == 0
    weights = load_checkpoint(next(tmp_path.glob("*/thinned.pt")))["state_dict"]
    assert len(weights["layer1.0.conv1.weight"]) == 14


def test_masks_hold_without_a_schedule(run, tmp_path):
    more = ["-a", "resnet20_cifar", *SMALL, "-o", str(tmp_path), "--epochs", "2", "--reset-optimizer"]
    assert compress_classifier.main([*more, "--resume-from", str(run / "checkpoint.pt")]) == 0
    before, after = (load_checkpoint(f / "checkpoint.pt")["state_dict"] for f in (run, tmp_path / "latest"))
    zero = before["layer2.1.conv1.weight"] == 0
    assert torch.equal(after["layer2.1.conv1.weight"] == 0, zero)
    assert not torch.equal(after["layer2.1.conv1.weight"], before["layer2.1.conv1.weight"])


def test_export_onnx(run, tmp_path, capsys):
    path = tmp_path / "thin.onnx"
    arguments = ["-a", "resnet20_cifar", "--resume-from", str(run / "thinned.pt"), "--export-onnx", str(path)]
    assert compress_classifier.main(arguments) == 0
    assert re.search(r"thin.onnx: written; difference to the network, relative: \d.\de-0[5-9]", capsys.readouterr().out)
    assert path.stat().st_size > 100_000


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sparsity", "zeros 0.29 % of 272,474 parameters"),
        ("compute", "40,813,184"),
        ("model", "ResNet"),
        ("modules", "layer1.0.bn1"),
        ("params", "  - layer3.2.conv2.weight"),
        ("channels", "removable"),
    ],
)
def test_summaries(kind, expected, capsys):
    assert compress_classifier.main(["-a", "resnet20_cifar", "--summary", kind]) == 0
    assert expected in capsys.readouterr().out


def test_list_of_networks(capsys):
    assert compress_classifier.main(["--arch", "list"]) == 0
    told = capsys.readouterr().out
    assert "googlenet_cifar" in told
    assert "convnext_tiny" in told


def test_dry_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(
        SCHEDULE.replace("policies:", "lr_schedulers: {lr: {class: StepLR, step_size: 5, gamma: 0.1}}\npolicies:")
        + "  - {lr_scheduler: {instance_name: lr}, starting_epoch: 8, ending_epoch: 20}\n"
    )
    more = ["--compress", "s.yaml", "--dry-run", "--table", "csv", "--epochs", "18"]
    assert compress_classifier.main(["-a", "resnet20_cifar", *more]) == 0
    told = capsys.readouterr().out
    assert "pruner,filters,L1RankedStructureParameterPruner,epoch 1,0.5,9" in told
    assert "filters (epoch 1) names 9 parameters:\n  layer1.0.conv1.weight, layer1.1.conv1.weight" in told
    assert told.count(".conv1.weight") == 9
    left = 272_474 - sum(count * (width // 2) * (9 * (inputs + width) + 2) for width, inputs, count in BLOCKS)
    rows = [line.split(",") for line in told.splitlines() if line[:1].isdigit()]
    rates = {row[0]: row[1] for row in rows}
    assert rates == {"0": "0.1", "1-8": "0.1", "9": "0.01", "10-14": "0.001", "15-17": "0.0001"}
    assert [row[4] for row in rows] == ["272474", *[str(left)] * 4]
    assert "lr is cut off: training ends before epoch 18" in told
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_dry_run_remarks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(
        "pruners:\n"
        "  a: {class: SparsityLevelParameterPruner, levels: {conv1.weight: 0.5, layer1.0.conv1.weight: 0.5}}\n"
        "  b: {class: AutomatedGradualPruner, initial_sparsity: 0, final_sparsity: 0.5,\n"
        "      weights: layer1.*.conv1.weight}\n"
        "policies:\n"
        "  - {pruner: {instance_name: a}, epochs: [2, 3]}\n"
        "  - {pruner: {instance_name: b}, starting_epoch: 0, ending_epoch: 3}\n"
        "  - {pruner: {instance_name: b}, starting_epoch: 7, ending_epoch: 9}\n"
    )
    assert compress_classifier.main(["-a", "resnet20_cifar", "--compress", "s.yaml", "--dry-run", "--epochs", "5"]) == 0
    told = capsys.readouterr().out
    assert "warning: a (epochs 2, 3) and b (epochs 0-2) overlap: both act on layer1.0.conv1.weight\n" in told
    assert "warning: a touches the first layer, conv1.weight" in told
    assert "warning: b never acts: training ends before epoch 5" in told


def test_validation_images_are_stored_and_never_augmented(run):
    stored = load_checkpoint(run / "checkpoint.pt")["split"]
    data = load_dataset("digits", seed=0, input_shape=(3, 32, 32), limit_validation=40)
    assert stored == list(data.split_indices)
    (first, _), (again, _) = (next(iter(data.validation.batches(8, epoch=e))) for e in (0, 5))
    assert torch.equal(first, again)


def test_options_as_distillers_schedules_have_them(tmp_path, capsys, monkeypatch):
    """A command from a header of Distiller's, on an image folder in place of CIFAR-10."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.yaml").write_text(SCHEDULE.replace("layer*", "module.layer*").replace("[1]", "[0]"))
    colours = torch.Generator().manual_seed(0)
    for part, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data.cifar10" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                write_png(
                    torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8, generator=colours), str(folder / f"{i}.png")
                )
    line = "-a=resnet20_cifar -p=50 data.cifar10 --epochs=1 --lr=0.1 --compress=half.yaml -j=1 --vs=0 --batch 4 --gpu=0"
    more = "--dataset=imagefolder --deterministic --masks-sparsity"
    assert compress_classifier.main([*line.split(), *more.split()]) == 0
    told = capsys.readouterr().out
    assert "layer1.0.conv1.weight" in told and "masked " in told
    assert "==> Best [Top1:" in told
    torch.use_deterministic_algorithms(False)


def test_what_is_shown_without_data_has_the_classes_of_the_data_set(tmp_path, capsys):
    def last_layer(*more):
        assert compress_classifier.main(["-a", "mobilenet_025", "--summary", "params", *more]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "- fc.weight " in line)
        return line.partition("#")[2].strip()

    folder = tmp_path / "images"
    for name in ("ant", "bee", "cow"):
        (folder / "train" / name).mkdir(parents=True)
    assert last_layer() == last_layer("--dataset", "imagefolder", "--data", str(tmp_path)) == "[1000, 256]"
    assert last_layer("--dataset", "digits") == "[10, 256]"
    assert last_layer("--dataset", "imagefolder", "--data", str(folder)) == last_layer(str(folder)) == "[3, 256]"
    (tmp_path / "s.yaml").write_text(SCHEDULE.replace("layer*.conv1.weight", "fc.weight").replace("filters", "f"))
    arguments = ["-a", "mobilenet_025", "--compress", str(tmp_path / "s.yaml"), "--dry-run", "--dataset", "digits"]
    assert compress_classifier.main(arguments) == 0
    parameters = 470_072 - 990 * 257  # the page of models tells those of 1000 classes
    assert f"the network has {parameters:,} parameters" in capsys.readouterr().out


DURING = """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, weights: [layer*.conv1.weight]}
extensions:
  remover: {class: Thinner}
policies:
  - {pruner: {instance_name: filters}, epochs: [0]}
  - {extension: {instance_name: remover}, epochs: [1]}
"""


def loaders(folder):
    """Potstill's loader and the one that is stored beside the weights."""
    spec = importlib.util.spec_from_file_location("thinned", folder / "thinned.py")
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    return (lambda model: load(model, folder / "thinned.safetensors")), alone.load


def test_a_network_thinned_in_mid_training_is_stored_whole(tmp_path, capsys):
    """At the end nothing more is dead; the stored recipe and files tell the whole way from the dense network."""
    (tmp_path / "during.yaml").write_text(DURING)
    small = ["-a", "resnet20_cifar", *SMALL, "--limit-train", "64", "-o", str(tmp_path)]
    assert compress_classifier.main([*small, "--compress", str(tmp_path / "during.yaml"), "--name", "during"]) == 0
    folder = (tmp_path / "latest").resolve()
    assert compress_classifier.main([*small, "--resume-from", str(folder / "thinned.pt"), "--thinnify"]) == 0
    (other,) = [path for path in tmp_path.iterdir() if path.is_dir() and path.resolve() != folder]
    gone = sum(count * (width // 2) * (9 * (inputs + width) + 2) for width, inputs, count in BLOCKS)
    x = torch.randn(4, 3, 32, 32)
    outputs = []
    for each in (folder, other):
        recipe = Recipe.from_json((each / "recipe.json").read_text())
        assert recipe.parameters == (272_474, 272_474 - gone)
        assert "272,474 -> " in (each / "recipe.txt").read_text()
        outputs += [loader(create_model("resnet20_cifar")).eval()(x) for loader in loaders(each)]
    for output in outputs:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=0)
    text = capsys.readouterr()
    assert text.out.count("thinning: 272,474 -> ") + text.err.count("thinning: 272,474 -> ") == 2


def test_a_run_loads_what_it_stores_before_it_is_done(run, tmp_path, capsys, monkeypatch):
    """Break the stored weights as they are written: the run says so and ends with an error."""
    whole = store._tensors
    monkeypatch.setattr(store, "_tensors", lambda *args: {name: 1.5 * t for name, t in whole(*args).items()})
    more = ["-a", "resnet20_cifar", *SMALL, "-o", str(tmp_path)]
    with pytest.raises(SystemExit):
        compress_classifier.main([*more, "--resume-from", str(run / "checkpoint.pt"), "--thinnify"])
    assert "the loaded model does not compute what it computed when stored" in "".join(capsys.readouterr())


def test_round_to_auto_measures_and_says_what_it_took(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("potstill.compression.latency.measure.ROUNDS", 1)
    monkeypatch.setattr("potstill.command.run.finish.fastest", partial(fastest, seconds=0))
    given = ["-a", "resnet20_cifar", *SMALL, "-o", str(tmp_path), "--thinnify", "--round-to", "auto"]
    assert compress_classifier.main([*given, "--exp-load-weights-from", str(run / "checkpoint.pt")]) == 0
    said = re.findall(
        r"multiples of +(\d+), (\w+): [\d.]+ of the time of the narrowest network(: taken)?", capsys.readouterr().out
    )
    (taken,) = [(int(multiple), layout) for multiple, layout, chosen in said if chosen]
    (summary,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/summary.json"))
    assert (summary["round_to"], summary["layout"]) == taken
    thinned = load_checkpoint(next(tmp_path.glob("*/thinned.pt")))["state_dict"]
    assert all(tensor.shape[0] % taken[0] == 0 for name, tensor in thinned.items() if "conv1.weight" in name)
