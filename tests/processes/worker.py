"""Ranks of pools: forks of one process, which loads torch and the jobs once.

Each order is a line of JSON on standard input: where the ranks report, and the environment of each. A rank does the
jobs that come as lines of JSON, and answers each with a line. The process itself never computes: a fork would lack the
threads that a backward pass begins.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
import torch.distributed as dist

SECONDS = 120  # that a message waits for the others, who may have to wait for a core
JOBS = ("training", "sharding", "meeting", "halves")


def load(name):
    """A module of jobs beside this file."""
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def join(backend):
    """Be a rank of the process group, if there is one; without a backend the job makes its own."""
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["RANK"]))
    if backend and not dist.is_initialized() and "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timedelta(seconds=SECONDS))


def serve(door, number, backend):
    """Do jobs until nobody gives any."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(door)
        jobs = connection.makefile("rw")
        print(json.dumps([number, os.getpid()]), file=jobs, flush=True)
        for line in jobs:
            module, function, arguments = json.loads(line)
            try:
                join(backend)
                answer = getattr(load(module), function)(**arguments)
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=jobs, flush=True)


def main():
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that end are not waited for
    for name in JOBS:
        load(name)
    print("ready", flush=True)
    os.dup2(2, 1)  # what is printed is no answer
    for line in sys.stdin:
        door, backend, environments = json.loads(line)
        for number, environment in enumerate(environments):
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.environ.update(environment)
                serve(door, number, backend)
                os._exit(0)


main()
