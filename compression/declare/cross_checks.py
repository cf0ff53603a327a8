"""What checks of a schedule are shown, and how one that cannot tell leaves the others alone.

A schedule is checked whole: a wrong argument must not hide what is wrong with the others. So checks are run with what
is right. Asking for what is not ends the check that asks, and no other; a default never stands in for what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from ..steps import Window

Complaint = tuple[str, str]
"""Where (an argument, or `argument.entry`) and what is wrong there."""


class Withheld(Exception):  # noqa: N818  (no error: it ends a check that cannot tell)
    """A check asked for what is wrong itself, or not known."""


def apart(*checks: Iterable[Complaint]) -> Iterator[Complaint]:
    """Yield what independent checks find; one that asks for what is withheld ends alone."""
    for check in checks:
        with suppress(Withheld):
            yield from check


class Given(Mapping[str, Any]):
    """The arguments of a definition as far as they are right, defaults included.

    Names of parameters are those of the model; entries of a list or mapping of names that are wrong are left out.

    Attributes:
        written: those that the schedule gives, with names and patterns as they stand there, be they wrong.
        complete: whether nothing is wrong.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        wrong: Collection[str] = (),
        partial: Mapping[str, Collection[Any]] | None = None,
        written: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the values, the names of those that are wrong or missing, and the entries that were left out."""
        self._values, self._wrong, self._partial = values, wrong, partial or {}
        self.written: Mapping[str, Any] = values if written is None else written
        self.complete = not wrong and not partial

    def __getitem__(self, name: str) -> Any:
        """Return an argument.

        Raises:
            Withheld: it is wrong.
        """
        if name in self._wrong:
            raise Withheld(name)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        """Return whether there is such an argument, be it wrong."""
        return name in self._wrong or name in self._values

    def __iter__(self) -> Iterator[str]:
        """Yield all arguments."""
        return iter({**self._values, **dict.fromkeys(self._wrong)})

    def __len__(self) -> int:
        """Return their number."""
        return len({*self._values, *self._wrong})

    def whole(self, name: str) -> Any:
        """Return a list or mapping of names as it was written.

        Raises:
            Withheld: something in it is wrong.
        """
        if name in self._wrong or self._partial.get(name):
            raise Withheld(name)
        return self.written[name]

    def first(self, name: str) -> Any:
        """Return the first entry of a list, for checks that give it a meaning of its own.

        Raises:
            Withheld: it is wrong.
        """
        if 0 in self._partial.get(name, ()):
            raise Withheld(name)
        return self[name][0]


NOTHING = Given({})
"""No arguments."""


class Unknown(Given):
    """Arguments that are wrong as a whole."""

    def __init__(self) -> None:
        """Take nothing."""
        super().__init__({})
        self.complete = False

    def __getitem__(self, name: str) -> Any:
        """Return None: no value is known.

        Raises:
            Withheld: always.
        """
        raise Withheld(name)

    def __contains__(self, name: object) -> bool:
        """Return True: there may be any argument."""
        return True


def first(args: Mapping[str, Any], name: str) -> Any:
    """Return the first entry of a list as it was written; see `Given.first`."""
    return args.first(name) if isinstance(args, Given) else args[name][0]


class Shapes(Mapping[str, torch.Size]):
    """The shape of each parameter.

    Attributes:
        model: the network; None where a schedule is checked without one.
    """

    def __init__(self, model: nn.Module | None) -> None:
        """Take the network."""
        self.model = model
        self._shapes = {} if model is None else {name: p.shape for name, p in model.named_parameters()}

    def __getitem__(self, name: str) -> torch.Size:
        """Return the shape of a parameter.

        Raises:
            Withheld: there is no model.
        """
        if self.model is None:
            raise Withheld(name)
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._shapes)

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._shapes)


class Use:
    """How a policy uses an instance.

    Attributes:
        given: the instance's arguments.
        args: the policy's.
        shapes: those of the parameters.
    """

    def __init__(self, cls: type | None, given: Given, args: Given, window: Window | None, shapes: Shapes) -> None:
        """Take these, the instance's class and the policy's window; None: wrong or not known."""
        self._cls, self.given, self.args, self._window, self.shapes = cls, given, args, window, shapes

    @property
    def cls(self) -> type:
        """The instance's class.

        Raises:
            Withheld: it is wrong.
        """
        return _known(self._cls)

    @property
    def window(self) -> Window:
        """Return when the policy acts.

        Raises:
            Withheld: its times are wrong.
        """
        return _known(self._window)


def refused_weights(
    args: Mapping[str, Any], shapes: Mapping[str, Any], find: Callable[[str, nn.Module], Any]
) -> Iterable[Complaint]:
    """Complain of those of `weights` for which `find` raises a `ValueError`; of none where the model is not known."""
    model: Any = getattr(shapes, "model", None)
    for name in args["weights"] if model is not None else ():
        try:
            find(name, model)
        except ValueError as error:
            yield f"weights.{name}", str(error)


def _known(value: Any) -> Any:
    if value is None:
        raise Withheld
    return value
