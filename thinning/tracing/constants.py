"""Which rows of a weight do nothing, and what a layer makes of constants; on real weights, touching little of them."""

from __future__ import annotations

import torch
from torch import Tensor


def zero_rows(weight: Tensor, columns: Tensor | None = None, among: Tensor | None = None) -> Tensor:
    """Return which rows of `weight` (rows, columns, ...) are exactly zero in `columns` (bool; None for all).

    Only those of `among` (bool; None for all) are looked at.
    """
    # Called for every layer at every step of the search for living channels, so it must not read whole weights: few
    # rows pass the first column, and of what is left few the next ones (the first may be a dead channel's, all zero).
    if columns is not None:
        columns = None if bool(columns.all()) else columns.nonzero().flatten().to(weight.device)
    count = weight.shape[1] if columns is None else len(columns)
    some = torch.arange(len(weight)) if among is None else among.nonzero().flatten()
    some, start, end = some.to(weight.device), 0, 1
    while start < count and len(some):
        part = weight[some, start:end] if columns is None else weight[some.unsqueeze(1), columns[start:end]]
        some = some[(part == 0).flatten(1).all(1)]
        start, end = end, 8 * end
    rows = torch.zeros(len(weight), dtype=torch.bool)
    rows[some.cpu()] = True
    return rows


def zero_slices(weight: Tensor, dim: int, among: Tensor | None = None) -> Tensor:
    """Return which slices of a tensor (of those `among`, bool) along a dimension are zero, without a copy of it."""
    if weight.ndim == 1:
        zero = (weight.detach() == 0).cpu()
        return zero if among is None else zero & among
    return zero_rows(weight.detach().movedim(dim, 0), among=among)


def layer_value(weight: Tensor, value: Tensor | None, groups: int, bias: Tensor | None, padded: bool) -> Tensor | None:
    """Return what the outputs of a layer equal whatever its input, NaN where they depend on it; None if they all do.

    `weight` is (outputs, inputs per group, ...), `value` (inputs) the known values of the inputs, `bias` (outputs) the
    bias. Constants pass exactly only where nothing is padded.
    """
    if value is None or groups == 1:
        result = _group_value(weight, value, padded)
    elif weight.shape[1] == 1:
        result = _depthwise_value(weight, value, padded)
    else:
        rows, inputs = weight.chunk(groups), value.chunk(groups)
        result = torch.cat([_group_value(w, v, padded) for w, v in zip(rows, inputs, strict=True)])
    if bool(result.isnan().all()):
        return None
    return result if bias is None else result + bias


def _group_value(weight: Tensor, value: Tensor | None, padded: bool) -> Tensor:
    result = torch.full((len(weight),), torch.nan, dtype=torch.float64)
    result[zero_rows(weight, None if value is None else value != 0)] = 0.0
    # A constant input gives a constant output only if every position of the kernel sees it: at a zero-padded border the
    # kernel sees zeros in its place, so the outputs differ from those within.
    if value is not None and not padded and bool(((value != 0) & ~value.isnan()).any()):
        # Rows that read nothing but constants: all their weights on unknown inputs are 0.
        silent = zero_rows(weight, value.isnan()) & result.isnan()
        rows = weight[silent.to(weight.device)].double().cpu()
        known = value.nan_to_num(nan=0.0).reshape(1, -1, *[1] * (weight.ndim - 2))
        result[silent] = (rows * known).flatten(1).sum(1)
    return result


def _depthwise_value(weight: Tensor, value: Tensor, padded: bool) -> Tensor:
    each = value.repeat_interleave(len(weight) // len(value))
    # Sums in double precision: the constant moves into a bias, where the rounding of float32 would stay.
    total = weight.double().flatten(1).sum(1).cpu() * each
    if padded:
        total = torch.where(each == 0, 0.0, torch.nan)
    total[zero_rows(weight) | (each == 0)] = 0.0
    return total


def real_values(values: Tensor) -> Tensor:
    """Return what is known, in float64; of complex numbers only that they are 0."""
    # Known values are float64, so that a chain of operations on them rounds less than the network's own float32.
    return torch.where(values == 0, 0.0, torch.nan).double() if values.is_complex() else values.double()


def stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is known of values when they are kept as integers (cut off), truth values or complex numbers."""
    return torch.where(value.isnan(), torch.nan, real_values(value.nan_to_num(nan=0.0).to(dtype)))
