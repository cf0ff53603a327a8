"""What becomes of a recipe of SparseML, and the functions that translate its modifiers, entered by their kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from potstill.compression.declare.names import normalise

from .sparseml_recipe import Modifier

ALL, PRUNABLE = "__ALL__", "__ALL_PRUNABLE__"
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
ATOM = r"(?:\\[.dw]|\[[\w.-]+\]|[\w.-])"
EXPRESSION = re.compile(rf"\^?(?:{ATOM}[*+?]?|\((?:\?:)?{ATOM}+(?:\|{ATOM}+)*\)(?![*+?]))*\$?")
"""Regular expressions that are tried: of groups only plain alternatives, so that none takes for ever."""
MOST_REPEATS = 5
"""Of repetitions and alternatives together."""
MOST_EPOCHS = 3000
"""A rate for each, as one curve, is as much as a schedule may hold."""


class Untranslated(Exception):  # noqa: N818 -- says what it is in the words that users read
    """What a modifier asks for cannot be said in a schedule."""


@dataclass
class Translation:
    """What becomes of a recipe.

    Attributes:
        schedule: sections and policies.
        pieces: of the learning rate: (first epoch, last epoch, rate, rate, shape).
        epochs: the length of training, or None.
        options: what the command line has to say.
        notes: (line, what was left out or rounded).
    """

    model: nn.Module
    teacher: Mapping[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=lambda: {"policies": []})
    pieces: list[tuple[int, int, float, float, str]] = field(default_factory=list)
    epochs: int | None = None
    options: list[str] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)

    def note(self, modifier: Modifier, text: str) -> None:
        """Remember what was not done as the recipe says."""
        self.notes.append((modifier.line, f"!{modifier.kind}: {text}"))

    def add(self, kind: str, name: str, instance: dict[str, Any], **when: Any) -> None:
        """Enter an instance and its policy."""
        section = self.schedule.setdefault(f"{kind}s", {})
        name = f"{name}_{len(section) + 1}"
        section[name] = instance
        self.schedule["policies"].append({kind: {"instance_name": name}, **when})

    def epoch(self, modifier: Modifier, name: str, default: float | None = None) -> int:
        """Return a whole epoch; -1 is the end of training as far as it is known."""
        value = number(modifier, name, default)
        if value < 0 and name == "end_epoch":
            if self.epochs is None:
                raise Untranslated("it lasts to the end of training, which no !EpochRangeModifier before it gives")
            return self.epochs
        whole = round(max(value, 0))
        if whole > MOST_EPOCHS:
            raise Untranslated(f"{name} is {value:g}")
        if value >= 0 and whole != value:
            self.note(modifier, f"{name} {value:g} is rounded to {whole}: policies begin with an epoch")
        return whole

    def weights(self, modifier: Modifier, asked: Any) -> list[str]:
        """Return the parameters that names, regular expressions and SparseML's words for all of them mean."""
        names = dict.fromkeys(name for name, _ in self.model.named_parameters())
        found: dict[str, None] = {}
        for entry in [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []:
            plain = normalise(str(entry))
            fitting = [plain] if plain in names else list(self._fitting(str(entry), names))
            if not fitting:
                self.note(modifier, f"{str(entry)[:60]!r} fits no parameter of the network")
            found.update(dict.fromkeys(fitting))
        if not found:
            raise Untranslated("it names no parameter of the network that --arch names (params)")
        return list(found)

    def _fitting(self, entry: str, names: Iterable[str]) -> Iterable[str]:
        if entry == ALL:
            return names
        if entry == PRUNABLE:
            return [f"{name}.weight" for name, module in self.model.named_modules() if isinstance(module, LAYERS)]
        if not entry.startswith("re:"):
            return []
        pattern = entry.removeprefix("re:")
        if not EXPRESSION.fullmatch(pattern) or len(re.findall(r"(?<!\()[*+?|]", pattern)) > MOST_REPEATS:
            raise Untranslated(f"the regular expression {pattern[:60]!r} is not a simple one: write the names")
        return [name for name in names if re.match(pattern, name)]


Rule = Callable[[Modifier, Translation], None]
RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Enter a function that translates modifiers of these kinds; it raises `Untranslated` where it cannot."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return enter


def number(modifier: Modifier, name: str, default: float | None = None) -> float:
    """Return a field that is a number.

    Raises:
        Untranslated: it is missing or something else.
    """
    value = modifier.fields.get(name, default)
    if type(value) not in (int, float) or not abs(value) < float("inf"):
        raise Untranslated(f"{name} is {'missing' if value is None else ascii(value)[:40]}, not a number")
    return value
