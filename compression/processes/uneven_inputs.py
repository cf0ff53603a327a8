"""Ranks that run out of batches: `DistributedDataParallel.join()` does not go with a scheduler, and is refused.

A rank that has joined answers DDP's messages and no others, and makes no steps: those of a scheduler (means of gates'
gradients, comparisons) would be taken for DDP's, or be waited for until a timeout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

REFUSAL = (
    "DistributedDataParallel.join() does not go with a scheduler: a rank that has run out of batches makes no steps and"
    " answers none of its messages. Leave `with model.join()` out and give all ranks as many batches in each epoch"
    " (DistributedSampler does; the last batch of a rank may be empty)"
)


def watch_for_join(model: nn.Module) -> None:
    """Look in the next forward pass that DistributedDataParallel makes whether it is within `join()`.

    The wrapper may have been made behind the scheduler's back, so it is asked for where it calls the network.
    """
    model.register_forward_pre_hook(refuse_join)


def refuse_join(module: nn.Module, inputs: Any) -> None:
    """Take itself off the network, once DistributedDataParallel calls it.

    Raises:
        RuntimeError: the pass is within `join()`.
    """
    wrapper = None if torch.compiler.is_compiling() else DistributedDataParallel._get_active_ddp_module()
    if wrapper is None:
        return
    for number, hook in list(module._forward_pre_hooks.items()):
        if hook is refuse_join:
            del module._forward_pre_hooks[number]
    if wrapper._join_config.enable:
        raise RuntimeError(REFUSAL)
