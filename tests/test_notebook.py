"""The notebook runs in a kernel as it stands; its cells show tables and pictures."""

import base64
from pathlib import Path

import pytest
import torch
from torchvision.io import ImageReadMode, decode_png

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

PATH = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
TABLES = {
    "schedule": "AutomatedGradualPruner",
    "scheduler": "masks of ",
    "scheduler.masks": "gates (hard)",
    "scheduler.account()": "removable",
    "recipe": "Recipe for Sequential: ",
}
"""The last line of a cell -> what its table says."""
PICTURES = ("plots.timeline", "plots.metrics", "plots.channels", "plots.sensitivity")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The last line of each cell -> what it shows, by type."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(PATH, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {
        cell.source.splitlines()[-1]: output.data
        for cell in cells
        for output in cell.outputs
        if output.output_type == "execute_result"
    }


def test_objects_show_tables(shown):
    for line, text in TABLES.items():
        assert "<table>" in shown[line]["text/html"]
        assert text in shown[line]["text/html"] and text in shown[line]["text/plain"], line
        assert "object at 0x" not in shown[line]["text/plain"]


@pytest.mark.parametrize("call", PICTURES)
def test_pictures_are_drawn(shown, call):
    (data,) = [data for line, data in shown.items() if line.startswith(call)]
    png = base64.b64decode(data["image/png"])
    pixels = decode_png(torch.frombuffer(bytearray(png), dtype=torch.uint8), ImageReadMode.RGB_ALPHA)
    assert 0.01 < (pixels[3] > 0).float().mean() < 0.9  # something, without a background
