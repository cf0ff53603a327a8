"""Every example runs as its first lines say, on little data, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = {
    "own_loop": (["--epochs", "3"], [], r"loaded again, equal: True"),
    "lightning_fit": (["--epochs", "7"], ["lightning"], r"6,186 -> [23],\d\d\d parameters, accuracy"),
    "hugging_face_bert": (
        ["--epochs", "2"],
        ["transformers", "accelerate"],
        r"(?s)from_pretrained loads it: .*\nequal: True",
    ),
    "timm_vit": ([], ["timm"], r"1,932,874 -> 1,\d{3},\d{3} parameters, 32,886,144 -> 1[89],\d{3},\d{3} multiply-adds"),
    "detector": ([], [], r"(?s)194,390,635 -> 13\d,\d{3},\d{3} multiply-adds\nboxes, labels, scores: \(300, 4\)"),
    "lstm_words": (["--epochs", "6", "--words", "3000"], [], r"lstm.weight_hh_l0 .* 1,639 .* 89.996"),
    "accelerate_loop": (["--epochs", "4"], ["accelerate"], r"(?s)zeros: 78.8 %\n.*equal: True"),
    "quantize": ([], ["torchao"], r"(?s)34,666 -> 17,\d{3} parameters\nint8 weights: .*e-03"),
    "onnx_export": (
        [],
        ["onnxruntime", "onnxscript"],
        r"(?s)34,666 -> 17,\d{3} parameters\nbatch of 4: .*e-0[78]\nbatch of 1: .*e-0[78]",
    ),
}


def test_all_are_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_example(name, monkeypatch, capsys):
    arguments, needs, printed = RUNS[name]
    for package in needs:
        pytest.importorskip(package)
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 80
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(printed, capsys.readouterr().out)
