"""`--ema`, `--warmup-epochs`, `--label-smoothing`: what they compute, and what checkpoints and exports hold."""

import csv
import math

import pytest
import torch

import compress_classifier
from potstill.command.cli.options import parse
from potstill.command.run.evaluation import classification_loss
from potstill.command.run.prepare import prepare
from potstill.compression import load_checkpoint
from potstill.models import create_model

NET = ["-a", "simplenet_cifar", "--limit-train", "96", "--limit-test", "40", "-b", "32", "--lr", "0.02"]
SCHEDULE = """
pruners:
  filters: {class: L1RankedStructureParameterPruner, desired_sparsity: 0.5, group_type: 3D, weights: [conv2.weight]}
policies:
  - {pruner: {instance_name: filters}, epochs: [1]}
"""


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A pruned run whose weights were averaged."""
    out = tmp_path_factory.mktemp("averaged")
    (out / "s.yaml").write_text(SCHEDULE)
    arguments = [*NET, "--epochs", "3", "--ema", "0.8", "--keep-checkpoints", "3", "--compress", str(out / "s.yaml")]
    assert compress_classifier.main([*arguments, "-o", str(out)]) == 0
    return out / "latest"


def test_checkpoints_hold_the_average_and_training_s_own_weights(averaged):
    stored = load_checkpoint(averaged / "checkpoint.pt")
    network, own = stored["state_dict"], stored["training_weights"]
    assert network.keys() == own.keys() and not torch.equal(network["fc1.weight"], own["fc1.weight"])
    hidden = own["conv2.weight"] == 0
    assert int(hidden.flatten(1).all(1).sum()) == 8 and bool((network["conv2.weight"][hidden] == 0).all())
    assert torch.equal(stored["scheduler"]["policies"]["--ema"]["averages"]["fc1.weight"], network["fc1.weight"])


def test_what_is_validated_thinned_and_stored_is_the_average(averaged, tmp_path, capsys):
    rows = list(csv.DictReader((averaged / "metrics.csv").open()))
    told = {}
    for what, path in (
        ("folder", averaged),
        ("file", averaged / "checkpoint.pt"),
        ("thinned", averaged / "thinned.pt"),
    ):
        capsys.readouterr()
        asked = ["--resume-from", str(path), "-e", "-o", str(tmp_path)]
        assert compress_classifier.main([*asked, *([] if path.is_dir() else NET)]) == 0
        (told[what],) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("test ==>"))
    assert told["folder"] == told["file"] == told["thinned"]
    own = load_checkpoint(averaged / "checkpoint.pt")
    run = prepare(parse([*NET, "--epochs", "3"]))
    run.folder.discard()
    run.model.load_state_dict(own["state_dict"])
    losses = []
    for weights in (own["state_dict"], own["training_weights"]):
        run.model.load_state_dict(weights)
        batches = list(run.data.validation.batches(1000))
        with torch.no_grad():
            losses.append(float(torch.nn.functional.cross_entropy(run.model.eval()(batches[0][0]), batches[0][1])))
    assert float(rows[-1]["val_loss"]) == pytest.approx(losses[0], rel=1e-5) != pytest.approx(losses[1], rel=1e-5)


def test_averages_are_those_of_the_steps(averaged, tmp_path):
    """Of the first epoch: the run again, a minibatch at a time."""
    stored = load_checkpoint(averaged / "checkpoint_0000.pt")
    mean = {}
    for steps, minibatch in enumerate((1, 2, 3)):
        folder = tmp_path / str(minibatch)
        run = prepare(parse([*NET, "--epochs", "1", "-o", str(folder)]))
        run.network.train()
        run.scheduler.on_epoch_begin(0, run.optimizer, 3)
        for images, labels in list(run.data.train.batches(32, 0))[:minibatch]:
            run.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(run.network(images), labels).backward()
            run.optimizer.step()
        run.folder.discard()
        decay = min(0.8, (1 + steps) / (10 + steps))
        for name, tensor in run.model.state_dict().items():
            mean[name] = decay * mean.get(name, tensor) + (1 - decay) * tensor
    for name, tensor in stored["state_dict"].items():
        torch.testing.assert_close(tensor, mean[name], rtol=1e-5, atol=1e-7)


def test_without_the_option_a_run_goes_on_from_the_average_and_says_so(averaged, tmp_path, capsys):
    asked = ["--resume-from", str(averaged / "checkpoint_0001.pt"), *NET, "--epochs", "2", "-o", str(tmp_path)]
    assert compress_classifier.main(asked) == 0
    assert "the average of the weights (--ema) is another than before: not given, it was 0.8" in capsys.readouterr().out
    kept = load_checkpoint(averaged / "checkpoint_0001.pt")["state_dict"]
    again = load_checkpoint(tmp_path / "latest" / "thinned.pt")["state_dict"]
    assert torch.equal(again["fc2.weight"], kept["fc2.weight"])


def test_label_smoothing_shares_a_part_among_all_classes():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 1, 2, 2])
    targets = torch.full((5, 4), 0.3 / 4)
    targets[range(5), labels] += 0.7
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert float(classification_loss(logits, labels, 0.3)[0]) == pytest.approx(float(expected), rel=1e-6)
    one = torch.tensor([[0.2], [0.9]])
    expected = ((0.2 - 0.15) ** 2 + (0.9 - 0.85) ** 2) / 4
    assert float(classification_loss(one, torch.tensor([0, 1]), 0.3)[0]) == pytest.approx(expected, rel=1e-4)


def test_options_reach_the_loss_and_the_rates(tmp_path, monkeypatch):
    rates, smoothings = [], []
    step, loss = torch.optim.SGD.step, torch.nn.functional.cross_entropy

    def stepped(self, closure=None):
        rates.append(self.param_groups[0]["lr"])
        return step(self, closure)

    def entropy(*args, label_smoothing=0.0, **more):
        smoothings.append(label_smoothing)
        return loss(*args, label_smoothing=label_smoothing, **more)

    monkeypatch.setattr(torch.optim.SGD, "step", stepped)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", entropy)
    options = ["--epochs", "3", "--warmup-epochs", "2", "--label-smoothing", "0.2", "-o", str(tmp_path)]
    assert compress_classifier.main([*NET, *options]) == 0
    assert rates == pytest.approx([0.02 * min(1, (i + 1) / 6) for i in range(9)])
    assert smoothings[:4] == [0.2, 0.2, 0.2, 0.0]  # validation is of the labels themselves
    rows = list(csv.DictReader((tmp_path / "latest" / "metrics.csv").open()))
    assert [float(row["lr"]) for row in rows] == [0.02] * 3 and not any(math.isnan(float(r["val_loss"])) for r in rows)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--ema", "1", "1 is not a number of 0 or more and at most 0.999999"),
        ("--label-smoothing", "1", "1 is not a number of 0 or more and below 1"),
        ("--warmup-epochs", "-1", "is not a whole number of 0 or more"),
    ],
)
def test_values_that_cannot_be(capsys, option, value, message):
    with pytest.raises(SystemExit):
        compress_classifier.main([f"{option}={value}"])
    assert message in capsys.readouterr().err


def test_a_strangers_training_weights_are_checked(averaged, tmp_path, capsys):
    from potstill.compression import save_checkpoint

    stored = load_checkpoint(averaged / "checkpoint_0000.pt")
    weights = {**stored["training_weights"], "fc1.weight": torch.zeros(2, 2)}
    save_checkpoint(tmp_path / "x.pt", {**stored, "training_weights": weights})
    with pytest.raises(SystemExit):
        compress_classifier.main(["--resume-from", str(tmp_path / "x.pt"), *NET, "--ema", "0.8", "-o", str(tmp_path)])
    assert "training_weights.fc1.weight: expected a tensor of shape [120, 400]" in capsys.readouterr().err


def test_a_network_without_batches_has_an_average(tmp_path):
    """BatchNorm's statistics and its count of batches too."""
    arguments = ["-a", "mlp_bn", *NET[2:], "--epochs", "1", "--ema", "0.5", "-o", str(tmp_path)]
    assert compress_classifier.main(arguments) == 0
    stored = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")
    norm = next(name for name in create_model("mlp_bn").state_dict() if name.endswith("running_mean"))
    assert not torch.equal(stored["state_dict"][norm], stored["training_weights"][norm])
    count = norm.replace("running_mean", "num_batches_tracked")
    assert int(stored["state_dict"][count]) == int(stored["training_weights"][count]) == 3
