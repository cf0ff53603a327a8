"""Where in a module's code an operation is carried out: what modules of a class have in common."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

CALL = nn.modules.module.__file__
TORCH = str(Path(torch.__file__).parent) + os.sep  # not torchvision
OURS = str(Path(__file__).parents[1]) + os.sep

Lines = tuple[tuple[CodeType, int], ...]


def lines_of_code() -> Lines:
    """Return the lines that lead to the operation from where the module that runs was called, the innermost first."""
    lines = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != CALL:
        if not frame.f_code.co_filename.startswith((TORCH, OURS)):
            lines.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(lines)
