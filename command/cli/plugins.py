"""`--plugin`: loaded before the other options are read, since these may name what it brings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from potstill.compression.schedule import load_plugin
from potstill.models import model_info, model_names
from potstill.models.datasets import dataset_names
from potstill.models.datasets.raw import find_reader
from potstill.models.registry import model_factory

from ..exports import exports
from .training_options import CompressionOptions


def load_plugins(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Import the plugins that the arguments name.

    Args:
        parser: one that knows nothing else than `--plugin`.
        arguments: of the command line.

    Raises:
        PluginError: a plugin cannot be imported, or registers nothing.
    """
    CompressionOptions.add_to(parser, "plugin")
    for file in parser.parse_known_args(arguments)[0].plugin:
        load_plugin(file, _brings_more)


def _brings_more(module: str) -> bool:
    """Return whether a module registered a network, a data set or an export."""
    networks = [model_factory(name) for name in model_names() if model_info(name).source == "potstill"]
    readers = [find_reader(name) for name in dataset_names()]
    writers = [export.write for export in exports().values()]
    return any(made.__module__ == module for made in [*networks, *readers, *writers])
