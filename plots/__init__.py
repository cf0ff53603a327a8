"""Pictures for notebooks, papers and the command line: each function returns a matplotlib figure.

With `ax=` a picture's main panel is drawn into axes of yours. They need the extra `plot`
(`pip install "potstill[plot]"`), show on white and on black, and do not touch pyplot.
"""

from __future__ import annotations

from .acts import Act
from .channels import channels
from .metrics import metrics
from .sensitivity import sensitivity
from .timeline import timeline

__all__ = ["Act", "channels", "metrics", "sensitivity", "timeline"]
