"""Adding a pruner, a regularizer, a rule, a network, a data set or an export is one file in a folder that finds it."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("command", "compression", "models", "plots", "schedules", "thinning")

FILES = {
    "compression/pruners/of_mine.py": """
        from ..declare import Names, register
        from .base import Pruner

        @register("pruners")
        class PrunerOfMine(Pruner):
            def __init__(self, weights: Names) -> None:
                self.weights = weights

            def masks(self, view):
                return {}
        """,
    "compression/regularizers/of_mine.py": """
        from ..declare import Strengths, register
        from .base import Regularizer

        @register("regularizers")
        class RegularizerOfMine(Regularizer):
            def __init__(self, reg_regims: Strengths) -> None:
                self.reg_regims = reg_regims

            def loss(self, weights, step):
                return 0.0
        """,
    "thinning/tracing/rules/of_mine.py": """
        from ..registry import rule

        @rule("mine.double")
        def double(call):
            pass
        """,
    "models/of_mine.py": """
        from torch import nn
        from .registry import register_model

        @register_model("net_of_mine", input_shape=(1, 4, 4), num_classes=3)
        def make(num_classes: int, in_channels: int) -> nn.Module:
            \"\"\"A Linear.\"\"\"
            return nn.Sequential(nn.Flatten(), nn.Linear(16 * in_channels, num_classes))
        """,
    "models/datasets/of_mine.py": """
        from .raw import register_dataset

        @register_dataset("data_of_mine")
        def read(folder, settings):
            raise NotImplementedError
        """,
    "command/exports/of_mine.py": """
        from .registry import register_export

        @register_export("mine", "model.mine", help="in my own format")
        def write(model, example, path, metadata):
            path.write_text(f"{type(model).__name__} of {tuple(example.shape)}")
        """,
}

PROGRAM = """
from potstill.compression import registered
from potstill.thinning.tracing.registry import RULES
from potstill.models.datasets import dataset_names
import compress_classifier

assert "PrunerOfMine" in registered("pruners") and "RegularizerOfMine" in registered("regularizers")
assert "mine.double" in RULES
assert "data_of_mine" in dataset_names()
assert compress_classifier.main(["--arch", "net_of_mine", "--export-mine", "out.txt"]) == 0
assert compress_classifier.main(["--arch", "net_of_mine", "--export-mine"]) == 0
assert open("out.txt").read() == open("model.mine").read() == "Sequential of (2, 1, 4, 4)"
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the packages, and the files dropped into it."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "potstill", tmp_path / "potstill", symlinks=True)
    shutil.copy(ROOT / "compress_classifier.py", tmp_path)
    for path, code in FILES.items():
        (tmp_path / path).write_text(textwrap.dedent(code))
    return tmp_path


def test_one_file_is_enough(checkout):
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, '.')\n{PROGRAM}"]
    done = subprocess.run(command, cwd=checkout, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", FILES)
def test_the_page_names_the_folder(path):
    assert f"`{Path(path).parent}/`" in (ROOT / "docs/extending.md").read_text()
