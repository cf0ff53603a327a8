"""The equality check: does the thinned network compute the same function?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .copies import shared_copy
from .inputs import next_step, run, tensors_of
from .precision import full_precision, in_double_throughout
from .run import fixed_chance


def randomized(example_inputs: Any, seed: int = 0) -> Any:
    """Return normal random numbers of the same shapes for floating-point tensors, others as they are."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator, device="cpu").to(tensor.device, tensor.dtype)

    return tree_map_only(Tensor, draw, example_inputs)


def outputs(model: nn.Module, batches: Sequence[Any], double: bool = False, onward: bool = False) -> list[list[Tensor]]:
    """Return what a model returns in eval mode for each of several inputs, by a copy that shares its parameters.

    The model itself does not run: what its code keeps (counters, states of a stream, buffers) stays as it is, and is
    the same at the next call. With `double` the copy, its inputs and what its code makes in less are in double
    precision. With `onward` a model that returns a cache of keys and values goes on from it by one token.
    """
    if double:
        doubles = [in_double(batch) for batch in batches]
        return in_double_throughout(lambda: _outputs(shared_copy(model).double(), doubles, onward))
    return _outputs(shared_copy(model), batches, onward)


def _outputs(copy: nn.Module, batches: Sequence[Any], onward: bool) -> list[list[Tensor]]:
    # Of a copy, since code that counts calls or keeps a state would differ between the run before and the run after.
    results = []
    copy.eval()
    with torch.no_grad(), full_precision():
        for batch in batches:
            with fixed_chance():
                results.append(_results(copy, batch, onward))
    return results


def _results(copy: nn.Module, batch: Any, onward: bool) -> list[Tensor]:
    result = run(copy, batch)
    found = tensors_of(result, numbers=True)
    if onward and (more := next_step(copy, batch, result)) is not None:
        with suppress(Exception):  # whatever a model's code says against it; then as many results are missing
            found += tensors_of(run(copy, more), numbers=True)
    return [_dense(tensor.detach()) for tensor in found]


def _dense(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.layout == torch.strided else tensor.to_dense()


def in_double(example_inputs: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, example_inputs)
