"""Inputs as data: what a model was thinned with, so that a stored model can be tried again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ThinningError
from ..files.checked import Field
from .inputs import arguments

Spec = dict[str, Any]
MOST_DRAWN = 2**27
"""Elements of an input that are drawn at most where a file describes it: 0.5 GB."""
MOST_DIMENSIONS = 32
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
)
AS_GIVEN = 256
"""Integers up to so many are kept as they were: lengths and masks have to fit the other inputs."""


def describe(example_inputs: Any) -> Spec | None:
    """Return shapes and types of the inputs, of integers values or range; None unless they are plain."""
    args, kwargs = arguments(example_inputs)
    try:
        return {"args": [_one(value) for value in args], "kwargs": {key: _one(value) for key, value in kwargs.items()}}
    except TypeError:
        return None


def _one(value: Any) -> Spec:
    if isinstance(value, Tensor):
        spec: Spec = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        if not value.is_floating_point() and value.numel() and not value.is_complex() and value.device.type != "meta":
            if value.numel() <= AS_GIVEN:
                spec["values"] = value.flatten().tolist()
            spec |= {"low": int(value.min()), "high": int(value.max())}
        return spec
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"no description of {type(value).__name__}")


def checked_spec(stored: Field) -> Spec | None:
    """Return a description that comes from a file; None where there is none, or one of more than can be drawn.

    Raises:
        Field.failure: it is not as `describe` makes them.
    """
    if stored.value is None:
        return None
    args = [_checked(item) for item in stored["args"].items()]
    kwargs = {name: _checked(item) for name, item in stored["kwargs"].mapping().items()}
    known = None not in args and None not in kwargs.values()
    return {"args": args, "kwargs": kwargs} if known else None


def _checked(item: Field) -> Spec | None:
    if "shape" not in item.mapping():
        value = item["value"]
        if not (value.value is None or isinstance(value.value, (bool, int, float, str))):
            raise value.error("a number or a text")
        return {"value": value.value}
    spec: Spec = {"shape": list(item["shape"].integers()), "dtype": item["dtype"].text(DTYPES)}
    spec |= {key: item[key].integer(-(2**63)) for key in ("low", "high") if key in item.value}
    if math.prod(spec["shape"]) > MOST_DRAWN or len(spec["shape"]) > MOST_DIMENSIONS:
        return None
    if "values" in item.value:
        spec["values"] = [value.integer(-(2**63)) + 0 for value in item["values"].items()]
        if len(spec["values"]) != math.prod(spec["shape"]):
            raise item["values"].error(f"{math.prod(spec['shape'])} numbers")
    if spec.get("low", 0) > spec.get("high", 1):
        raise item["low"].error("a number up to `high`")
    return spec


def draw(spec: Any, seed: int = 0) -> Any:
    """Return random inputs as `describe` saw them; None if there is no description."""
    if not isinstance(spec, dict):
        return None
    generator = torch.Generator().manual_seed(seed)
    args = tuple(_draw(item, generator) for item in spec["args"])
    kwargs = {key: _draw(item, generator) for key, item in spec["kwargs"].items()}
    return kwargs if kwargs else args


def _draw(spec: Spec, generator: torch.Generator) -> Any:
    if "shape" not in spec:
        return spec["value"]
    dtype = getattr(torch, spec["dtype"])
    if dtype.is_floating_point:
        return torch.randn(spec["shape"], generator=generator, device="cpu").to(dtype)
    if dtype.is_complex:
        return torch.randn(spec["shape"], generator=generator, device="cpu", dtype=dtype)
    if "values" in spec:
        return torch.tensor(spec["values"]).to(dtype).reshape(spec["shape"])
    low, high = spec.get("low", 0), spec.get("high", 1)
    return torch.randint(low, high + 1, spec["shape"], generator=generator, device="cpu").to(dtype)


def pack(inputs: Any) -> tuple[dict[str, Tensor], Spec]:
    """Return inputs as named tensors and a description of where they go."""
    args, kwargs = arguments(inputs)
    tensors: dict[str, Tensor] = {}

    def place(value: Any, name: str) -> Spec:
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        return {"value": value}

    spec = {
        "args": [place(value, f"input.{i}") for i, value in enumerate(args)],
        "kwargs": {key: place(value, f"input.{key}") for key, value in kwargs.items()},
    }
    return tensors, spec


def unpack(tensors: Mapping[str, Tensor], spec: Any) -> Any:
    """Return the inputs that `pack` took apart. Raises `ThinningError` if they are not there."""
    try:
        args = tuple(_take(tensors, item) for item in spec["args"])
        kwargs = {key: _take(tensors, item) for key, item in spec["kwargs"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ThinningError(f"the stored probe is damaged: {error!r}") from error
    return kwargs if kwargs else args


def _take(tensors: Mapping[str, Tensor], item: Mapping[str, Any]) -> Any:
    return tensors[item["tensor"]] if "tensor" in item else item["value"]
