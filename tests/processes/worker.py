"""One rank of a pool: does the jobs that come as lines of JSON on its standard input, and answers each with a line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
import torch.distributed as dist

SECONDS = 20  # that a message waits for the others


def load(name):
    """A module of jobs beside this file."""
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed is no answer
    torch.set_num_threads(1)
    load("training")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        module, function, arguments = json.loads(line)
        try:
            if not dist.is_initialized() and "RANK" in os.environ:
                dist.init_process_group("gloo", timeout=timedelta(seconds=SECONDS))
            answer = getattr(load(module), function)(**arguments)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()
