"""Packaging: the folders of this checkout become the sub-packages of the namespace `potstill`."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

ROOTS = ("command", "compression", "models", "schedules", "thinning")
FOLDERS = {
    ".".join(("potstill", *path.parent.relative_to(HERE).parts)): str(path.parent.relative_to(HERE))
    for root in ROOTS
    for path in sorted((HERE / root).rglob("__init__.py"))
}
PLOT = ["matplotlib>=3.7"]
TENSORBOARD = ["tensorboard>=2.13"]
ONNX = ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.17"]
TEST = [
    "hypothesis>=6.80",
    "jsonschema>=4.20",
    "mypy>=1.10",
    "pandas-stubs>=2.0",
    "pytest>=7.4",
    "ruff>=0.5",
    "types-PyYAML>=6.0",
    "types-tabulate>=0.9",
    "types-tqdm>=4.66",
]

setup(
    name="potstill",
    version="0.1.0",
    description="Compression of PyTorch networks by schedule: prune, regularize, gate, then thin and prove it.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=list(FOLDERS),
    package_dir=FOLDERS,
    package_data={
        "potstill.schedules": ["*.yaml", "*/*.yaml"],
        **{name: ["py.typed"] for name in ("potstill.compression", "potstill.models", "potstill.thinning")},
    },
    py_modules=["compress_classifier"],
    entry_points={"console_scripts": ["compress-classifier=compress_classifier:main"]},
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "PyYAML>=6.0",
        "pandas>=2.0",
        "tabulate>=0.9",
        "tqdm>=4.66",
        "safetensors>=0.4.3",
        "scikit-learn>=1.3",
    ],
    extras_require={"test": TEST + PLOT + TENSORBOARD + ONNX, "plot": PLOT, "tensorboard": TENSORBOARD, "onnx": ONNX},
)
