"""Starts training processes quickly: torch is imported once, and each run is a fork.

Reads a line of JSON for each run: `{"arguments": [...], "log": path}` starts one and answers its process id,
`{"wait": pid}` waits for it and answers its status (negative: the signal that killed it). `"interrupt": [epoch,
minibatch]` sends SIGINT to the run there.
"""

import json
import os
import signal
import sys
import traceback

import torch

import compress_classifier
from potstill.command.run import size_report
from potstill.models.datasets import load_dataset

torch.set_num_threads(1)
load_dataset("digits")  # imports scikit-learn once
size_report.SECONDS = 0.0  # latencies are measured, but not for long


def interrupt_at(moment: list[int]) -> None:
    """Let a run interrupt itself in one of its minibatches."""

    class Interrupting(compress_classifier.Watch):
        def __init__(self, run, images):
            super().__init__(run, images)
            if [run.epoch, run.minibatch] == moment:
                os.kill(os.getpid(), signal.SIGINT)

    compress_classifier.Watch = Interrupting


def run(arguments: list[str], log: str) -> None:
    """The child: a training process like any other, with its output in a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = 1
    try:
        status = compress_classifier.main(arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
    else:
        answer = os.fork()
        if answer == 0:
            if order["interrupt"]:
                interrupt_at(order["interrupt"])
            run(order["arguments"], order["log"])
    print(answer, flush=True)
