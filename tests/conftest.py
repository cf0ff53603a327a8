"""`pytest --device cuda`: the same tests with the tests' own networks and inputs on another device."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from potstill.command.run.log_text import _Console

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once: before any test multiplies matrices
LIBRARY = Path(__file__).resolve().parent.parent
OURS = tuple(f"{LIBRARY / name}/" for name in ("compression", "thinning", "command"))
TORCH = f"{Path(torch.__file__).parent}/"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--device", help="where the tests make their networks and inputs (the CPU without it)")


def pytest_configure(config: pytest.Config) -> None:
    """Let tests make their tensors there; what they compute themselves is exact to 1e-5 or to the bit."""
    # A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send to themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # `nohup pytest` has them ignore that one
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores
        torch.set_num_threads(1)
    device = config.getoption("--device")
    if device is not None:
        torch.backends.cudnn.allow_tf32 = False
        torch.use_deterministic_algorithms(torch.device(device).type == "cuda")
        mode = UsersDevice(device)
        mode.__enter__()
        config.add_cleanup(lambda: mode.__exit__(None, None, None))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """Escape file names that are no text in what a test said: a worker cannot send them to the terminal."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def console_of_one_test() -> Iterator[None]:
    """The command line's console shows other libraries' warnings too: it must not go on into the next test."""
    root, library = logging.getLogger(), logging.getLogger("potstill")
    # A module's own fixture, which runs the command line once for all its tests, comes before this one and leaves it.
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Console)]
    handlers, levels = list(root.handlers), (root.level, library.level)
    yield
    root.handlers = handlers
    root.setLevel(levels[0])
    library.setLevel(levels[1])


class UsersDevice(TorchFunctionMode):
    """New tensors lie on a device, but not those that the library makes: it is not told, and has to find out."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.constructors = device, _device_constructors()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        made = func in self.constructors and kwargs.get("device") is None
        if not made or _caller().startswith(OURS):
            return func(*args, **kwargs)
        if kwargs.get("generator") is None:
            return func(*args, **{**kwargs, "device": self.device})
        return func(*args, **{**kwargs, "device": "cpu"}).to(self.device)


def _caller() -> str:
    """The file of the innermost frame that is neither torch's nor this one."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TORCH, __file__)):
        frame = frame.f_back
    return frame.f_code.co_filename
