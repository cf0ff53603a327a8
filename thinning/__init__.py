"""Thinning: find which slices of which parameters are the same channel, remove the dead ones, prove the result."""

from .errors import ThinningError
from .graph import AttributeUse, ChannelClass, ChannelGraph, Layer, Scale, Use
from .trace import trace

__all__ = [
    "AttributeUse",
    "ChannelClass",
    "ChannelGraph",
    "Layer",
    "Scale",
    "ThinningError",
    "Use",
    "trace",
]
