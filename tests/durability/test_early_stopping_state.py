"""The best network of early stopping is needed at the end: what is wrong with it is said at the beginning."""

import pytest
import torch

import compress_classifier
from potstill.compression import load_checkpoint, save_checkpoint

RUN = ["-a", "mlp", "--limit-train", "64", "--limit-test", "20", "--early-stop", "best"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["best"]["state_dict"].update({"layers.1.bias": torch.ones(3)}), "expected a tensor of shape [16]"),
        (lambda s: s["best"]["state_dict"].pop("layers.1.bias"), "layers.1.bias: is missing"),
        (lambda s: s["best"]["scheduler"]["masks"].pop("dense"), "dense: is missing"),
        (lambda s: s["validation"].append("low"), "validation[2]: expected a number, found 'low'"),
        (lambda s: s["training"].append(1.0), "expected as many errors as in validation"),
    ],
)
def test_wrong_fields(tmp_path, capsys, change, message):
    assert compress_classifier.main([*RUN, "--epochs", "2", "-o", str(tmp_path)]) == 0
    path = tmp_path / "latest" / "checkpoint.pt"
    checkpoint = load_checkpoint(path)
    change(checkpoint["early_stopping"])
    save_checkpoint(path, checkpoint)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(["--resume-from", str(tmp_path / "latest"), "--epochs", "3"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
