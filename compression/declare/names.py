"""Names and patterns of parameters, as schedules and constructors give them, resolved against a model.

A name is a parameter's full name; a pattern has `*` (any text, also across dots) or `?` (one character) in it. The
components `module` and `_orig_mod`, which `nn.DataParallel` and `torch.compile` put into names, are dropped on both
sides, so that a schedule written for a wrapped model fits a bare one and the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase, translate
from itertools import islice
from typing import Any, TypeVar

from torch import nn

from potstill.near_names import LONGEST, as_question, near_names, spelled_like
from potstill.thinning.names import normalise, spelling

V = TypeVar("V")
LISTED = 3
HINTS = 20  # a schedule for another network has hundreds of unknown names, and a hint costs 20 ms with 600 parameters
SURE = 0.8
"""Likeness from which on a word is taken for a mistyped other one, to check what stands under it too."""


class UnknownName(ValueError):  # noqa: N818 -- says what it is in the words that users read
    """A name or pattern fits no parameter, or fits one that another pattern gives another value."""


def is_pattern(name: str) -> bool:
    """Return whether the name stands for any number of parameters."""
    return "*" in name or "?" in name


def misspelled(word: str, written: Iterable[str]) -> str:
    """Return ` (is … it?)` with what stands there and is most like a word that is missing, or nothing."""
    found = spelled_like(word, written)
    return f" (is {found[0]} it?)" if found else ""


def meant(word: str, options: Iterable[str]) -> str | None:
    """Return the option that a word surely means: itself, or what it is one or two letters away from."""
    return next(iter(spelled_like(word, options, 1, SURE)), None)


class ParameterIndex:
    """The names of a model's parameters, ready for look-ups.

    Tied parameters have several names; each leads to the first.
    """

    def __init__(self, names: Iterable[str] | Mapping[str, str]) -> None:
        """Index plain names, or a mapping of each name to the one that it leads to."""
        self.first: dict[str, str] = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
        self.normal: dict[str, list[str]] = {}
        self.whole: dict[str, str] = {}
        self._hints: dict[str, str] = {}
        for name in self.first:
            self.normal.setdefault(normalise(name), []).append(name)

    @classmethod
    def of(cls, source: nn.Module | Iterable[str] | ParameterIndex) -> ParameterIndex:
        """Return the index of a model, of names, or itself.

        Parameters of whole numbers are left out: there is no half-way between two of them, and no gradient.
        """
        if isinstance(source, ParameterIndex):
            return source
        if not isinstance(source, nn.Module):
            return cls(list(source))
        firsts: dict[int, str] = {}
        pairs = dict(source.named_parameters(remove_duplicate=False))
        trained = {name: p for name, p in pairs.items() if p.is_floating_point() or p.is_complex()}
        index = cls({name: firsts.setdefault(id(parameter), name) for name, parameter in trained.items()})
        others = {name: p for name, p in pairs.items() if name not in trained}
        index.whole = {normalise(name): str(p.dtype).removeprefix("torch.") for name, p in others.items()}
        return index

    def matches(self, name: str) -> list[str]:
        """Return the parameters that a name or pattern fits, in the model's order; none if it fits nothing."""
        if name in self.first:
            return [self.first[name]]
        wanted = normalise(name)
        if not is_pattern(wanted):
            found = self.normal.get(wanted, [])
        else:
            fits = re.compile(translate(wanted.replace("[", "[[]"))).match
            found = [full for normal, names in self.normal.items() if fits(normal) for full in names]
        return list(dict.fromkeys(self.first[full] for full in found))

    def complaint(self, name: str) -> str:
        """Return what to say of a name or pattern that fits no parameter."""
        what = "pattern" if is_pattern(name) else "name"
        shown = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
        pattern = normalise(name).replace("[", "[[]")
        dtype = next((self.whole[full] for full in self.whole if fnmatchcase(full, pattern)), None)
        if dtype is not None:
            return f"the {what} {shown!r} fits only parameters of whole numbers ({dtype}), which cannot be made sparse"
        if name not in self._hints:
            self._hints[name] = self._hint(name)
        return f"the {what} {shown!r} fits no parameter{self._hints[name]}"

    def _hint(self, name: str) -> str:
        if not self.first:
            return ": the model has none"
        if len(self._hints) >= HINTS:
            return ""
        wanted = normalise(name)
        kin = (normal for normal in self.normal if normal.startswith(f"{wanted}.") or normal.endswith(f".{wanted}"))
        found = list(islice(kin, LISTED)) or near_names(wanted, self.normal, LISTED)
        return as_question(found) or f"; the model's begin with {', '.join(list(self.normal)[:LISTED])}"

    def resolve(self, names: str | Sequence[str]) -> list[str]:
        """Return the parameters that names and patterns fit.

        In the order given, within a pattern in the model's, each once.

        Raises:
            UnknownName: some of them fit nothing.
        """
        found: dict[str, None] = {}
        unknown = []
        for name in [names] if isinstance(names, str) else names:
            fitting = self.matches(name)
            if not fitting:
                unknown.append(name)
            found.update(dict.fromkeys(fitting))
        if unknown:
            raise UnknownName("; ".join(self.complaint(name) for name in unknown))
        return list(found)

    def resolve_mapping(self, values: Mapping[str, V], star: bool = False) -> dict[str, V]:
        """Return the value of each parameter that a mapping with names and patterns as keys fits.

        A full name wins over a pattern. With `star` the key `*` is for all parameters that no other key fits.

        Raises:
            UnknownName: a key fits nothing, or two equally specific keys give one parameter different values.
        """
        unknown = [key for key in values if not (star and key == "*") and not self.matches(key)]
        if unknown:
            raise UnknownName("; ".join(self.complaint(key) for key in unknown))
        clashes = self.clashes(values, star)
        if clashes:
            raise UnknownName("; ".join(clashes.values()))
        owners = self.owners(values, star)
        return {name: values[keys[0]] for name, keys in owners.items()}

    def clashes(self, values: Mapping[str, V], star: bool = False) -> dict[str, str]:
        """Return the keys whose value contradicts an equally specific key's for one parameter, with the complaint."""
        found: dict[str, str] = {}
        for name, (first, *others) in self.owners(values, star).items():
            for other in others:
                if values[other] != values[first]:
                    found.setdefault(other, f"{first!r} and {other!r} both fit {name} and give it different values")
        return found

    def owners(self, values: Iterable[str], star: bool) -> dict[str, list[str]]:
        """Return the most specific keys that fit each parameter, in the order of the keys."""
        full: dict[str, list[str]] = {}
        wide: dict[str, list[str]] = {}
        for key in values:
            if not (star and key == "*"):
                for name in self.matches(key):
                    (wide if is_pattern(key) else full).setdefault(name, []).append(key)
        owners = wide | full
        if star and "*" in values:
            owners |= {name: ["*"] for name in self.first.values() if name not in owners}
        return owners


def resolve(names: str | Sequence[str], source: nn.Module | Iterable[str] | ParameterIndex) -> list[str]:
    """Return the parameters of a model, or of a list of names, that names and patterns fit.

    See `ParameterIndex.resolve`.
    """
    return ParameterIndex.of(source).resolve(names)


def resolve_mapping(
    values: Mapping[str, V], source: nn.Module | Iterable[str] | ParameterIndex, star: bool = False
) -> dict[str, V]:
    """Return the value of each parameter under a mapping of names and patterns.

    See `ParameterIndex.resolve_mapping`.
    """
    return ParameterIndex.of(source).resolve_mapping(values, star)


def respelled(state: Any, names: Iterable[str]) -> Any:
    """Return plain data in which parameters and modules are called as in `names`: what a wrapped network left, say.

    Names are keys with a dot in them, and texts in lists.
    """
    return _respelled(state, spelling(names))


def _respelled(state: Any, spell: Callable[[str], str]) -> Any:
    if isinstance(state, dict):
        return {
            spell(key) if isinstance(key, str) and "." in key else key: _respelled(value, spell)
            for key, value in state.items()
        }
    if isinstance(state, (list, tuple)):
        return type(state)(spell(item) if isinstance(item, str) else _respelled(item, spell) for item in state)
    return state
