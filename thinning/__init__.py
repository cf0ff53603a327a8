"""Thinning: find which slices of which parameters are the same channel, remove the dead ones, prove the result."""

from .errors import ThinningError
from .graph import AttributeUse, ChannelClass, ChannelGraph, Layer, Scale, Use
from .inputs import beside
from .macs import count_macs
from .places import on_cpu
from .recipe import Recipe
from .registry import rule
from .resize import resize_to
from .store import load, save
from .summary import channels_text
from .thin import thin
from .trace import trace

__all__ = [
    "AttributeUse",
    "ChannelClass",
    "ChannelGraph",
    "Layer",
    "Recipe",
    "Scale",
    "ThinningError",
    "Use",
    "beside",
    "channels_text",
    "count_macs",
    "load",
    "on_cpu",
    "resize_to",
    "rule",
    "save",
    "thin",
    "trace",
]
