"""Options: a field of a dataclass is all that one needs, from the parser to the checkpoint and back."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from potstill.command.cli.option import Group, of_this_call, option
from potstill.command.cli.option_types import count, positive
from potstill.command.cli.options import GROUPS, Options, parse
from potstill.command.errors import UsageError
from potstill.command.run.model_and_data import synchronised, tell_if_slow
from potstill.compression import CheckpointError
from potstill.compression.files.checked import Field


@dataclass(frozen=True)
class Mine(Group):
    """Options of a test."""

    TITLE: ClassVar[str] = "mine"

    often: int = option("--often", "-o", type=count, default=3, help="how often (default: %(default)s)")
    rate: float | None = option("--rate", type=positive, help="how fast")
    kind: str = option("--kind", choices=("a", "b"), default="a", help="which")
    loud: bool = option("--loud", default=False, help="louder")
    where: Path | None = option("--where", type=Path, help="folder")
    names: tuple[str, ...] = of_this_call("--names", nargs="+", default=(), help="names")


def parsed(*arguments, namespace=None):
    parser = argparse.ArgumentParser()
    Mine.add_to(parser)
    return Mine.of(parser.parse_args(arguments, namespace))


GIVEN = ["--often", "7", "--rate", "0.1", "--kind", "b", "--loud", "--where", "x/y", "--names", "p", "q"]


def test_a_field_is_an_option_and_is_stored():
    mine = parsed(*GIVEN)
    assert mine == Mine(7, 0.1, "b", True, Path("x/y"), ("p", "q"))
    assert mine.kept() == {"often": 7, "rate": 0.1, "kind": "b", "loud": True, "where": "x/y"}
    assert parsed() == Mine()


def test_what_is_stored_comes_back_and_what_is_given_goes_first():
    stored = Mine.stored(Field(parsed(*GIVEN).kept(), "options").mapping())
    again = parsed("--often", "2", namespace=argparse.Namespace(**stored))
    assert again == Mine(2, 0.1, "b", True, Path("x/y"), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"often": 0}, "options.often: 0 is not a whole number of 1 or more"),
        ({"often": 2.5}, "options.often: 2.5 is not a whole number of 1 or more"),
        ({"often": True}, "options.often: expected a finite number, found True"),
        ({"often": None}, "options.often: expected a finite number, found None"),
        ({"often": 2**31}, "options.often: 2147483648 is above 2147483647"),
        ({"rate": 0.0}, "options.rate: 0.0 is not a number above 0"),
        ({"kind": "c"}, "options.kind: expected 'a' or 'b', found 'c'"),
        ({"loud": 1}, "options.loud: expected true or false, found 1"),
        ({"where": 3}, "options.where: expected a text, found 3"),
    ],
)
def test_a_stored_value_is_checked_like_one_of_the_command_line(change, message):
    with pytest.raises(CheckpointError) as caught:
        Mine.stored(Field({**Mine().kept(), **change}, "options").mapping())
    assert str(caught.value) == message


def test_every_option_is_of_one_group_and_frozen():
    options = parse([])
    names = [name for group in GROUPS for name in vars(getattr(options, group))]
    assert len(names) == len(set(names)) > 60
    assert set(GROUPS) | {"checkpoint", "folder"} == set(Options.__dataclass_fields__)
    with pytest.raises(AttributeError):
        options.training.epochs = 3


def test_a_checkpoint_is_loaded_once_on_a_resume(tmp_path, monkeypatch):
    import compress_classifier
    from potstill.command.cli import options
    from potstill.command.run import model_and_data

    net = ["-a", "mlp", "--limit-train", "64", "--limit-test", "32", "--limit-validation", "32", "-o", str(tmp_path)]
    assert compress_classifier.main([*net, "--epochs", "1"]) == 0
    loaded = []
    for module in (options, model_and_data):
        load = module.load_checkpoint
        monkeypatch.setattr(module, "load_checkpoint", lambda path, load=load: loaded.append(path) or load(path))
    assert compress_classifier.main(["--resume-from", str(tmp_path / "latest"), "--epochs", "2"]) == 0
    assert len(loaded) == 1


@pytest.mark.parametrize(("processes", "device"), [("1", "cuda"), ("2", "cpu")])
def test_synchronised_norms_are_for_several_processes_on_gpus(monkeypatch, processes, device):
    for name, value in {"RANK": "0", "WORLD_SIZE": processes, "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"--sync-bn is for several processes on GPUs \(torchrun --nproc-per-node N\)"):
        synchronised(nn.Sequential(nn.BatchNorm2d(2)), torch.device(device))


@pytest.mark.parametrize(
    ("device", "has", "warned"), [("cpu", False, True), ("cpu", True, False), ("meta", False, False)]
)
def test_bfloat16_without_instructions_for_it_is_warned_of(monkeypatch, caplog, device, has, warned):
    """Convolutions fall back to loops there: a step of GoogLeNet took six times as long as in float32."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)
    tell_if_slow(torch.device(device), amp=True)
    tell_if_slow(torch.device(device), amp=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
