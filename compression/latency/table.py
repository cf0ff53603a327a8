"""Times of layers that were measured on a device, kept in a file so that each is measured once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from pathlib import Path

import torch

from potstill.thinning.files.atomic import write_atomically
from potstill.thinning.files.checked import Field, parse_json
from potstill.thinning.files.regular import read_whole

from .layers import Case

logger = logging.getLogger(__name__)
LARGEST = 32 * 2**20
"""Bytes of a table that is read: some 100,000 measurements."""
LONGEST = 1e9
"""Milliseconds of a layer, some ten days."""


def device_name(device: str) -> str:
    """Return what the device is, in the maker's words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return model or platform.processor() or platform.machine()


def cache_folder() -> Path:
    """Return where tables are kept: `$XDG_CACHE_HOME/potstill/latency`, in the home folder's `.cache` without it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "potstill" / "latency"


def _time(state: Field) -> float:
    if not 0 < state.number() <= LONGEST:
        raise state.error("milliseconds")
    return state.number()


class LatencyTable:
    """Milliseconds of layers by their shapes, on one device with one version of torch."""

    def __init__(self, device: str) -> None:
        """Read what was measured before; a file that cannot be read is measured anew, and said so."""
        self._facts = {"device": device_name(device), "torch": torch.__version__}
        digest = hashlib.sha256(json.dumps(self._facts).encode()).hexdigest()[:16]
        self.path = cache_folder() / f"{digest}.json"
        self._times = self._read()
        self._new = False

    def milliseconds(self, case: Case, inputs: int, outputs: int) -> float:
        """Return the time of a layer in these widths, measured if it was not yet."""
        key = case.key(inputs, outputs)
        if key not in self._times:
            self._times[key] = case.milliseconds(inputs, outputs)
            self._new = True
        return self._times[key]

    def save(self) -> None:
        """Write what is new; where that is not possible it is measured again the next time."""
        if not self._new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = json.dumps({**self._facts, "milliseconds": self._times}, indent=0)
            write_atomically(self.path, content.encode(), durable=False)
        except OSError as error:
            logger.warning("%s: the measured latencies cannot be kept: %s", self.path, error.strerror)
        self._new = False

    def _read(self) -> dict[str, float]:
        try:
            times = Field(parse_json(read_whole(self.path, LARGEST)))["milliseconds"].mapping()
            return {key: _time(value) for key, value in times.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("%s: measured latencies cannot be read (%s): they are measured anew", self.path, error)
            return {}
