"""Networks by name: the project's own, every torchvision classification model, timm's and transformers'.

`create_model` builds one, `model_names` lists them, `model_info` gives the usual input size and number of classes, and
`register_model` adds one: a file in this folder with a decorated function is found by itself. The data that the
networks train on is in `potstill.models.datasets`.
"""

from importlib import import_module
from pkgutil import iter_modules

from .create import create_model
from .info import ModelError, ModelInfo
from .registry import model_info, model_names, register_model

for _module in iter_modules(__path__):
    if not _module.ispkg:
        import_module(f"{__name__}.{_module.name}")

__all__ = ["ModelError", "ModelInfo", "create_model", "model_info", "model_names", "register_model"]
