"""`--plugin`: loaded before the other options are read, since these may name what it brings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from potstill.compression.schedule import load_plugin
from potstill.models import model_info, model_names
from potstill.models.datasets import dataset_names
from potstill.models.datasets.raw import find_reader
from potstill.models.registry import model_factory


def load_plugins(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Import the plugins that the arguments name.

    Args:
        parser: one that knows nothing else than `--plugin`.
        arguments: of the command line.

    Raises:
        PluginError: a plugin cannot be imported, or registers nothing.
    """
    add_plugin_option(parser)
    for file in parser.parse_known_args(arguments)[0].plugin:
        load_plugin(file, brings_network_or_data)


def add_plugin_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--plugin`."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="Python file that registers pruners, regularizers, policies, networks or data sets (repeatable)",
    )


def brings_network_or_data(module: str) -> bool:
    """Whether a module registered a network or a data set."""
    networks = [model_factory(name) for name in model_names() if model_info(name).source == "potstill"]
    readers = [find_reader(name) for name in dataset_names()]
    return any(made.__module__ == module for made in [*networks, *readers])
