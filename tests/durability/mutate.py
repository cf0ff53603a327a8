"""Makes files a little wrong: in their bytes, and in the values that they hold."""

import math
import signal
from contextlib import contextmanager

import torch

SECONDS = 60


@contextmanager
def no_hang():
    """What is read must be read, or refused, in finite time."""

    def stop(number, frame):
        raise AssertionError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutate_bytes(data: bytes, chance) -> bytes:
    """Flip bits, cut, drop, repeat, swap or blank parts."""
    data = bytearray(data)
    kind = chance.choice(["flip", "flip", "flips", "cut", "drop", "repeat", "swap", "blank", "append"])
    a, b = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else chance.randint(2, 20)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[a:]
    elif kind == "drop":
        del data[a : min(b, a + 500)]
    elif kind == "repeat":
        data[b:b] = data[a : a + 300]
    elif kind == "swap":
        first, second = data[a : a + 40], data[b : b + 40]
        data[a : a + len(first)], data[b : b + len(second)] = second, first
    elif kind == "blank":
        data[a : min(b, a + 2000)] = bytes(min(b, a + 2000) - a)
    else:
        data += bytes(chance.randrange(256) for _ in range(chance.randint(1, 50)))
    return bytes(data)


def places(value, path=()):
    """The path of each value inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def look(value, path):
    for key in path:
        value = value[key]
    return value


def put(value, path, new):
    """A copy of the value, with another one at a path; containers beside the path are shared."""
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict):
        return {key: put(item, rest, new) if key == first else item for key, item in value.items()}
    return type(value)(put(item, rest, new) if i == first else item for i, item in enumerate(value))


def remove(value, path):
    *outer, last = path
    holder = look(value, outer)
    if isinstance(holder, dict):
        return put(value, outer, {key: item for key, item in holder.items() if key != last})
    return put(value, outer, type(holder)(item for i, item in enumerate(holder) if i != last))


def other_value(value, chance):
    """A value that is not quite the old one."""
    if isinstance(value, torch.Tensor) and chance.random() < 0.8:
        return chance.choice([_of_other_shape, _of_other_type, _with_a_bad_value, _reordered])(value, chance)
    if isinstance(value, (int, float)) and chance.random() < 0.5:
        return chance.choice([value + 1, -value, value * 10**6, float(value), math.nan, math.inf, -1, 0, not value])
    return chance.choice(
        [None, True, 0, -1, 7, 2**62, 10**30, 0.5, math.nan, math.inf, "", "text", "hard", [], {}, (1, 2), [[[]]],
         {"a": 1}, torch.ones(3), torch.tensor(1.0), torch.zeros(0), torch.ones(1).expand(10**6), [None] * 5]
    )  # fmt: skip


def _of_other_shape(tensor, chance):
    flat = tensor.flatten()
    return chance.choice([tensor[None], flat[:-1], tensor.t() if tensor.dim() == 2 else flat[:0]])


def _of_other_type(tensor, chance):
    return tensor.to(chance.choice([torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64]))


def _with_a_bad_value(tensor, chance):
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if tensor.numel() and tensor.is_floating_point():
        tensor.view(-1)[chance.randrange(tensor.numel())] = chance.choice([math.nan, math.inf, -math.inf, 1e38])
    return tensor


def _reordered(tensor, chance):
    return tensor.flip(0) if tensor.dim() else -tensor


def mutate_fields(contents, chance):
    """One to three of: a field removed, renamed, replaced, or swapped with another one; and a word of what was done."""
    told = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        paths = list(places(contents))
        if not paths:
            break
        # fields near the top are few and matter most
        path = chance.choice([p for p in paths if len(p) <= chance.choice([1, 2, 3, 4, 9])] or paths)
        kind = chance.choice(["remove", "rename", "replace", "replace", "replace", "swap", "swap"])
        if kind == "remove":
            contents = remove(contents, path)
        elif kind == "rename":
            old = look(contents, path)
            contents = remove(contents, path)
            holder = look(contents, path[:-1])
            if isinstance(holder, dict):
                contents = put(contents, path[:-1], {**holder, chance.choice(["x", "state", 0, "", "mask"]): old})
        elif kind == "replace":
            contents = put(contents, path, other_value(look(contents, path), chance))
        else:
            other = chance.choice(paths)
            if path[: len(other)] != other and other[: len(path)] != path:
                first, second = look(contents, path), look(contents, other)
                contents = put(put(contents, path, second), other, first)
        told.append(f"{kind} {path}")
    return contents, ", ".join(told)
