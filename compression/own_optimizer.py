"""Is this the model's optimizer, and is training where the scheduler takes it to be?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

COUNTS = ("step", "n_iter")
"""Under which names optimizers count their steps in a parameter's state."""


def must_train(optimizer: Any, model: nn.Module, own: Iterable[Tensor] = ()) -> None:
    """Check that an optimizer has parameters of the model.

    Args:
        optimizer: what has `param_groups`; anything else is left alone.
        model: the network.
        own: further parameters that count (gates).

    Raises:
        ValueError: it has none of them.
    """
    groups = getattr(optimizer, "param_groups", None)
    if not groups:
        return
    known = {id(parameter) for parameter in (*model.parameters(), *own)}
    given = [parameter for group in groups for parameter in group["params"]]
    if given and not any(id(parameter) in known for parameter in given):
        raise ValueError(
            f"this optimizer ({type(optimizer).__name__}) has {len(given)} parameters, none of them of the model that"
            " the scheduler compresses: make it of that model's parameters (a copy has its own)"
        )


def steps_made(optimizer: Any) -> int:
    """Return how many steps an optimizer has made at least, by its state: 0 where that tells of none."""
    made = 0
    for state in getattr(optimizer, "state", {}).values():
        counted = [float(state[name]) for name in COUNTS if name in state]
        if counted:
            made = max(made, int(max(counted)))
        elif any(isinstance(value, Tensor) for value in state.values()):
            made = max(made, 1)
    return made


def first_step(optimizer: Any, steps: int | None, begun: tuple[int, ...] | None, per_epoch: int) -> int:
    """Return the number of steps made before, where it is given or known from the scheduler's state.

    Raises:
        ValueError: it is neither, and the optimizer has made steps; or the state is of epochs of another length.
    """
    if steps is not None:
        return steps
    if begun is not None and begun[2] == per_epoch:
        return begun[0] * per_epoch + begun[1]
    made = steps_made(optimizer)
    if begun is not None and (begun[0] or begun[1]):
        raise ValueError(
            f"the scheduler's state is of epoch {begun[0]}, minibatch {begun[1]} of {begun[2]}, and an epoch has"
            f" {per_epoch} now: give attach the steps made so far, attach(optimizer, {per_epoch}, steps=...)"
        )
    if made:
        raise ValueError(
            f"this optimizer has made steps ({made} at least) of which the scheduler knows nothing: it would begin at"
            " epoch 0 again. Where a run goes on, load all states and say how far it is:\n"
            '    optimizer.load_state_dict(checkpoint["optimizer"])\n'
            '    scheduler.load_state_dict(checkpoint["scheduler"])\n'
            f'    scheduler.attach(optimizer, {per_epoch}, steps=checkpoint["steps"])\n'
            "Where a trained network is to be compressed from here on, say so with steps=0"
        )
    return 0
