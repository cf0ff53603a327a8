"""Data sets by name, in three splits whose batches depend on nothing but (seed, epoch, position).

`load_dataset` gives a `DataBundle` of three `Split`s; `register_dataset` adds a data set: a file in this folder with a
decorated function is found by itself. What goes wrong with a folder or a file is a `DatasetError` of one line.
"""

from importlib import import_module
from pkgutil import iter_modules

from .augment import augmentation_names
from .bundle import DataBundle
from .errors import DatasetError
from .load import load_dataset
from .raw import RawData, RawPart, class_count, dataset_names, register_dataset
from .settings import Settings
from .split import Split

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DataBundle",
    "DatasetError",
    "RawData",
    "RawPart",
    "Settings",
    "Split",
    "augmentation_names",
    "class_count",
    "dataset_names",
    "load_dataset",
    "register_dataset",
]
