"""The layout: import directions, the guard for Python 3.14's own `compression`, lint and types."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALL = {"near_names"}
MAY_IMPORT = {
    "models": ALL | {"models"},
    "thinning": ALL | {"thinning"},
    "compression": ALL | {"compression", "thinning"},
    "plots": ALL | {"plots", "compression", "thinning"},
    "command": ALL | {"command", "compression", "models", "plots", "thinning"},
    "integrations": ALL | {"integrations", "compression", "models", "thinning"},
}


def imported(path: Path) -> set[str]:
    """The packages of ours that a file imports, relative imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(ROOT).parts) - node.level
            names = [f"potstill.{path.relative_to(ROOT).parts[0]}" if depth >= 1 else "outside"]
        found |= {name.split(".")[1] for name in names if name.startswith("potstill.")}
        assert "outside" not in names, f"{path} imports from above its package"
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_in_one_direction(package):
    for path in (ROOT / package).rglob("*.py"):
        assert imported(path) <= MAY_IMPORT[package], path


def test_importing_changes_nothing_global():
    code = """
        import logging, warnings, pandas, torch
        before = (torch.get_default_dtype(), pandas.get_option("display.max_rows"), list(logging.getLogger().handlers),
                  torch.initial_seed(), torch.get_num_threads(), list(warnings.filters))
        import torchvision
        before = before[:-1] + (list(warnings.filters),)
        import potstill.compression, potstill.thinning, potstill.models.datasets
        import potstill.compression.schedule
        after = (torch.get_default_dtype(), pandas.get_option("display.max_rows"), list(logging.getLogger().handlers),
                 torch.initial_seed(), torch.get_num_threads(), list(warnings.filters))
        assert before[:-1] == after[:-1], (before, after)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_our_folder_stands_aside_for_the_standard_library(tmp_path):
    """Python 3.14 imports `compression._common` from gzip; from the checkout's root it finds our folder first."""
    standin = tmp_path / "compression" / "_common"
    standin.mkdir(parents=True)
    (standin / "__init__.py").write_text("ours = False\n")
    code = f"""
        import sysconfig
        sysconfig.get_path = lambda name: {str(tmp_path)!r}
        import compression._common
        assert compression._common.ours is False
        assert not hasattr(compression, "CompressionScheduler")
        assert {str(ROOT)!r} in compression.__file__
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_lint():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_types():
    """mypy over the checkout as it stands."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy"],
        cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_reach_the_code_of_users(tmp_path):
    """A program elsewhere sees the signatures, through the install alone."""
    program = tmp_path / "program.py"
    program.write_text("from potstill import thin\nfrom potstill.compression import file_config\nreveal_type(thin)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache/users"), str(program)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "def (model: torch.nn.modules.module.Module" in done.stdout
