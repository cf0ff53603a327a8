"""The templates come along in an installed package."""

from distutils.core import run_setup
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_templates_are_package_data(monkeypatch):
    monkeypatch.chdir(ROOT)
    build = run_setup("setup.py", stop_after="init").get_command_obj("build_py")
    build.ensure_finalized()
    packed = {package: set(files) for package, _, _, files in build.data_files}
    templates = {path.name for path in (ROOT / "command" / "report" / "templates").iterdir()}
    assert len(templates) >= 6
    assert {f"templates/{name}" for name in templates} <= packed["potstill.command.report"]
