"""Thinning: find which slices of which parameters are the same channel, remove the dead ones, prove the result."""

from .changes import Magnitude, Rescaling
from .errors import ThinningError
from .graph import AttributeUse, ChannelClass, ChannelGraph, Layer, Scale, Use
from .history import resize_by
from .macs import count_macs
from .module_sizes import resize_to
from .names import compiled_of, unwrapped
from .recipe import Recipe
from .running.default_device import on_cpu
from .running.inputs import beside
from .store import load, read_about, save
from .summary import channels_text
from .thin import thin
from .trace import trace
from .tracing.registry import rule
from .zeros import Outlook, ZeroSlices, outlook

__all__ = [
    "AttributeUse",
    "ChannelClass",
    "ChannelGraph",
    "Layer",
    "Magnitude",
    "Outlook",
    "Recipe",
    "Rescaling",
    "Scale",
    "ThinningError",
    "Use",
    "ZeroSlices",
    "beside",
    "channels_text",
    "compiled_of",
    "count_macs",
    "load",
    "on_cpu",
    "outlook",
    "read_about",
    "resize_by",
    "resize_to",
    "rule",
    "save",
    "thin",
    "trace",
    "unwrapped",
]
