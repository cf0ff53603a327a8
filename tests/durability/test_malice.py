"""Files that would run code, fill the memory or never end, wherever the command line reads a file."""

import builtins
import functools
import os
import pickle
import shutil
import subprocess
import zipfile
from itertools import pairwise

import pytest
import torch

import compress_classifier
from potstill.compression import save_checkpoint

from .mutate import no_hang

NET = ["-a", "symmetry", "--dataset", "symmetry", "--epochs", "1"]


def refused(arguments, capsys):
    """The command line's one line of refusal."""
    with no_hang(), pytest.raises(SystemExit) as stop:
        compress_classifier.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in said
    assert said.startswith("compress-classifier: ")
    return said


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payloads(marker):
    """Calls that would make the marker file."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "exec": Calls(exec, code),
        "eval": Calls(eval, f"[{code}]"),
        "open": Calls(builtins.open, str(marker), "w"),
        "subprocess": Calls(subprocess.call, ["touch", str(marker)]),
        "partial": Calls(functools.partial(os.system, f"touch {marker}")),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "import": Calls(__import__, "antigravity_potstill"),
        "torch.load": Calls(torch.load, str(marker)),
        "set state": WithState(marker),
    }


class WithState:
    """Pickles as an object whose state is set by a call."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return shutil.rmtree, (str(self.marker.parent / "precious"), True), {"x": 1}


KINDS = [
    "eval", "exec", "getattr", "import", "open", "os.system", "partial", "set state", "subprocess", "torch.load",
]  # fmt: skip
READERS = ["--resume-from", "--exp-load-weights-from", "--import-distiller"]
FORMS = ["zip", "legacy", "bare pickle", "inside a field"]


def write_evil(path, payload, form):
    contents = {"format": 1, "epoch": 0, "minibatch": 0, "arch": "symmetry", "state_dict": {}}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(payload))
    elif form == "inside a field":
        torch.save({**contents, "scheduler": {"masks": [payload]}}, path)
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_pickles_do_not_run(tmp_path, capsys, kind, reader, form):
    marker, precious = tmp_path / "marker", tmp_path / "precious"
    precious.mkdir()
    write_evil(tmp_path / "evil.pt", payloads(marker)[kind], form)
    refused([*NET, reader, tmp_path / "evil.pt", "-o", tmp_path / "runs"], capsys)
    assert not marker.exists()
    assert precious.exists()


def test_the_payloads_would_run_where_pickles_are_run(tmp_path):
    marker = tmp_path / "marker"
    write_evil(tmp_path / "evil.pt", payloads(marker)["os.system"], "zip")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("reader", READERS)
def test_programs_of_torchscript_do_not_run(tmp_path, capsys, reader):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "program.pt"))
    assert "TorchScript" in refused([*NET, reader, tmp_path / "program.pt", "-o", tmp_path], capsys)


@pytest.mark.parametrize("reader", READERS)
def test_bombs(tmp_path, capsys, reader):
    """A few bytes that unpack to gigabytes, or to lists that hold themselves."""
    with zipfile.ZipFile(tmp_path / "zip.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(200_000_000))
    assert (tmp_path / "zip.pt").stat().st_size < 300_000
    said = refused([*NET, reader, tmp_path / "zip.pt", "-o", tmp_path], capsys)
    assert "larger than the file" in said
    circle = []
    circle.append(circle)
    doubled = ["x"]
    for _ in range(60):
        doubled = [doubled, doubled]
    fields = {"minibatch": 0, "arch": "symmetry", "state_dict": {}}
    for name, value in (("circle", circle), ("doubled", doubled), ("wide", torch.zeros(1).expand(2**45))):
        torch.save({"format": 1, "epoch": 0, **fields, "scheduler": value, "state": value}, tmp_path / f"{name}.pt")
        refused([*NET, reader, tmp_path / f"{name}.pt", "-o", tmp_path], capsys)
    (tmp_path / "memo.pt").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")  # a memo of 2^31 entries
    refused([*NET, reader, tmp_path / "memo.pt", "-o", tmp_path], capsys)


YAML_CALLS = [
    "!!python/object/apply:os.system ['touch {marker}']",
    "!!python/object/new:os.system ['touch {marker}']",
    "!!python/object:os.system {{}}",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object/apply:subprocess.Popen [['touch', '{marker}']]",
    "!!python/object/new:type {{args: ['z', !!python/tuple [], {{'extend': !!python/name:exec}}], listitems: 'x'}}",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {marker}']",
]


@pytest.mark.parametrize("call", YAML_CALLS)
@pytest.mark.parametrize("place", ["{call}", "pruners: {call}", "policies:\n  - pruner: {call}"])
def test_yaml_does_not_run(tmp_path, capsys, call, place):
    marker = tmp_path / "marker"
    (tmp_path / "evil.yaml").write_text(place.format(call=call.format(marker=marker)))
    said = refused([*NET, "--compress", tmp_path / "evil.yaml", "--dry-run"], capsys)
    assert "evil.yaml:" in said
    assert not marker.exists()


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{f'*{last},' * 9}]\n" for last, this in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "[" * 100_000,
        "{a: " * 100_000,
        "x: " + "9" * 900_000,
        "- &a *a",
        "# " + "x" * 3_000_000,
        "- - " * 50_000,
    ],
    ids=["billion laughs", "brackets", "braces", "digits", "itself", "large", "dashes"],
)
def test_yaml_bombs(tmp_path, capsys, text):
    (tmp_path / "bomb.yaml").write_text(text)
    said = refused([*NET, "--compress", tmp_path / "bomb.yaml", "--dry-run"], capsys)
    assert "bomb.yaml" in said and len(said) < 2000


def test_a_run_folder_cannot_name_code(tmp_path, capsys):
    """`--plugin` runs Python; a stranger's run folder must not bring one along unasked."""
    assert compress_classifier.main([*NET, "-o", str(tmp_path)]) == 0
    folder = tmp_path / "latest"
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()")
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    checkpoint["options"].update(plugin=[str(folder / "evil.py")], epochs=2)
    save_checkpoint(folder / "checkpoint.pt", checkpoint)
    capsys.readouterr()
    said = refused(["--resume-from", folder], capsys)
    assert f"this run had plugins, which are code: if you trust them, add --plugin {folder}/evil.py" in said
    assert not (tmp_path / "marker").exists()


def test_a_run_folder_cannot_ask_for_what_options_do_not_allow(tmp_path, capsys):
    assert compress_classifier.main([*NET, "-o", str(tmp_path)]) == 0
    folder = tmp_path / "latest"
    sound = torch.load(folder / "checkpoint.pt", weights_only=True)
    for change, message in (
        ({"workers": "9e9"}, "options.workers: expected a finite number, found '9e9'"),
        ({"lr": "nan"}, "options.lr: expected a finite number"),
        ({"device": ["cpu"]}, "options.device: expected a text"),
        ({"batch_size": 0}, "options.batch_size: 0 is not a whole number of 1 or more"),
        ({"arch": "mlb"}, "options.arch: no network 'mlb' (did you mean"),
        ({"on_nan": "go on"}, "options.on_nan: expected 'skip' or 'stop', found 'go on'"),
        ({"amp": "yes"}, "options.amp: expected true or false"),
    ):
        torch.save({**sound, "options": {**sound["options"], **change}}, folder / "checkpoint.pt")
        (folder / "checkpoint.pt.previous").unlink(missing_ok=True)
        capsys.readouterr()
        said = refused(["--resume-from", folder], capsys)
        assert message in said and "checkpoint.pt" in said
