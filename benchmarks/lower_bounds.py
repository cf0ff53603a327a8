"""Install exactly the oldest versions that `setup.py` allows, and run the tests with them.

    python benchmarks/lower_bounds.py /tmp/oldest                             # all tests
    python benchmarks/lower_bounds.py /tmp/oldest tests/thinning -k conv      # these, with pytest's options

The folder becomes a virtual environment (several GB; one that is there is used again, and brought to these versions).
numpy, which comes with torch and scikit-learn, is the newest that they take. Ends with pytest's exit status.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("install_requires", "TEST")
"""The lists of `setup.py` that the tests need; the type stubs and linters among them test nothing here."""
LEFT_OUT = ("mypy", "pandas-stubs", "pytest-xdist", "ruff", "types-")
COMPANIONS = ("numpy<2",)
"""What lower bounds take for granted: wheels of their time were made for numpy 1."""


def requirements(text: str) -> Iterator[str]:
    """Yield the requirements of a setup file, as they stand there."""
    for node in ast.walk(ast.parse(text)):
        names = [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.keyword):
            names = [node.arg or ""]
        if isinstance(node, (ast.Assign, ast.keyword)) and set(names) & set(NEEDED):
            yield from ast.literal_eval(node.value)


def oldest(requirement: str) -> str:
    """Return `name==version` of `name>=version`.

    Raises:
        ValueError: the requirement has no lower bound.
    """
    name, found, version = requirement.partition(">=")
    if not found:
        raise ValueError(f"setup.py: {requirement} has no lower bound")
    return f"{name}=={version.split(',')[0].strip()}"


def main(arguments: list[str] | None = None) -> int:
    """Make the environment and run the tests; return pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="virtual environment, made if it is not there")
    parser.add_argument("--list", action="store_true", help="print the versions and stop")
    options, tests = parser.parse_known_args(arguments)
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    pins = [oldest(line) for line in requirements(text) if not line.startswith(LEFT_OUT)]
    print(*pins, *COMPANIONS, sep="\n", flush=True)
    if options.list:
        return 0
    if not (options.folder / "pyvenv.cfg").exists():
        venv.create(options.folder, with_pip=True)
    python = options.folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pins, *COMPANIONS], check=True)
    command = [python, "-m", "pytest", "-o", "addopts=-q --import-mode=importlib", "-m", "not slow"]
    command += ["--ignore", "tests/test_packaging.py"]  # linters and type checkers, which are left out
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *(tests or ["tests"])], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
