"""Packaging: `potstill/` holds links to the folders of this checkout, its sub-packages."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "potstill/__init__.py").read_text(encoding="utf-8"), re.M)
PLOT = ["matplotlib>=3.7"]
TENSORBOARD = ["tensorboard>=2.13"]
ONNX = ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.17"]
LIGHTNING = ["lightning>=2.5"]
TRANSFORMERS = ["transformers>=4.52.1", "accelerate>=1.3"]
TIMM = ["timm>=1.0.3"]
EXAMPLES = ["torchao>=0.9", "pytorch-ignite>=0.5.1"]
TEST = [
    "hypothesis>=6.80",
    "jsonschema>=4.20",
    "ipykernel>=6.29",
    "mypy>=1.10",
    "nbclient>=0.10",
    "pandas-stubs>=2.0",
    "pytest>=7.4",
    "pytest-xdist>=3.5",
    "ruff>=0.5",
    "types-PyYAML>=6.0",
    "types-tabulate>=0.9",
    "types-tqdm>=4.66",
]

setup(
    name="potstill",
    version=VERSION[1] if VERSION else "",
    description="Compression of PyTorch networks by schedule: prune, regularize, gate, then thin and prove it.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "."},
    packages=find_packages(include=["potstill", "potstill.*"]),
    package_data={
        "": ["py.typed"],
        "potstill.schedules": ["*.yaml", "*/*.yaml"],
        "potstill.command.report": ["templates/*"],
    },
    py_modules=["compress_classifier"],
    entry_points={"console_scripts": ["compress-classifier=potstill.command.start:main"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "PyYAML>=6.0.1",
        "pandas>=2.0",
        "tabulate>=0.10",
        "tqdm>=4.66",
        "safetensors>=0.4.3",
        "scikit-learn>=1.3",
        "Jinja2>=3.1",
    ],
    extras_require={
        "test": TEST + PLOT + TENSORBOARD + ONNX + LIGHTNING + TRANSFORMERS + TIMM + EXAMPLES,
        "plot": PLOT,
        "tensorboard": TENSORBOARD,
        "onnx": ONNX,
        "lightning": LIGHTNING,
        "transformers": TRANSFORMERS,
        "timm": TIMM,
    },
)
