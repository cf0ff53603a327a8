"""The table of a run's account: a row for each policy and each parameter that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pandas as pd

from potstill.thinning.files.html import html_table
from potstill.thinning.files.text import Lines

from .history import Span
from .parts.structures import Group
from .sparsity_tables import format_table, with_something_in
from .steps import Step

COLUMNS = (
    "policy",
    "parameter",
    "unit",
    "of",
    "asked",
    "asked (%)",
    "hidden",
    "hidden (%)",
    "removable",
    "inexact",
    "stays",
    "why",
    "first",
    "last",
)
TITLE = "asked and done, by policy and parameter:"
COUNTS = ("of", "asked", "hidden", "removable", "inexact", "stays")
SHARES = ("asked (%)", "hidden (%)")


@dataclass
class Entry:
    """One policy and one parameter; counts are of `unit`s (filters, channels, weights), those removed before included.

    `stays` are the hidden ones that thinning leaves as zeros; `shared` names weights that make the same channels and
    that the policy does not list.
    """

    policy: str
    parameter: str
    unit: str
    of: int
    asked: int | None
    hidden: int
    removable: int
    inexact: int
    stays: int
    why: str
    shared: tuple[str, ...] = ()
    frozen: bool = False
    span: Span | None = None
    group: Group | None = field(default=None, repr=False)


class Account(pd.DataFrame):
    """The account of a run, shown in short; whatever is taken from it is a plain table."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        """Return what finishing a run logs."""
        return account_text(self)

    def _repr_html_(self) -> str:
        """Return the same as HTML, with the reasons."""
        shown = with_something_in(condensed(self))
        return html_table(list(shown.columns), shown.itertuples(index=False))


def account_table(entries: Iterable[Entry]) -> Account:
    """Return the account as a table with the columns of `COLUMNS`.

    A row a policy and parameter; nothing known is NaN.
    """
    table = pd.DataFrame([_row(entry) for entry in entries], columns=list(COLUMNS))
    return Account(table.astype({name: "Int64" if name in COUNTS else "Float64" for name in (*COUNTS, *SHARES)}))


def account_text(table: pd.DataFrame) -> Lines:
    """Return the account as text, without columns that say nothing."""
    shown = condensed(table)
    # A warning says why structures stay: once is enough, and the table is narrower.
    shown = shown.assign(why=shown["why"].where((shown["stays"].fillna(0) == 0) | (shown["unit"] == "weights"), ""))
    text, in_markdown = (format_table(with_something_in(shown), form) for form in ("text", "markdown"))
    return Lines(f"{TITLE}\n{text}", f"{TITLE}\n\n{in_markdown}")


def condensed(table: pd.DataFrame, most: int = 3) -> pd.DataFrame:
    """Return the account with one row for the many parameters of a policy of which nothing is left to say."""
    whole = (table["why"] == "") & (table["stays"] == 0) & (table["inexact"] == 0)
    done = (table["parameter"] != "") & (whole | (table["unit"] == "weights"))
    rows = []
    for keys, part in table.groupby(["policy", "unit", "first", "last", done], sort=False, dropna=False):
        if not keys[-1] or len(part) <= most:
            rows.append(part)
            continue
        sums = {name: part[name].sum() for name in COUNTS} | {"asked": part["asked"].sum(min_count=len(part))}
        shares = {f"{name} (%)": 100 * sums[name] / sums["of"] for name in ("asked", "hidden")}
        rows.append(part.iloc[:1].assign(parameter=f"{len(part)} parameters", **sums, **shares))
    return pd.concat(rows) if rows else table


def _row(entry: Entry) -> dict[str, object]:
    first, last = (None, None) if entry.span is None else map(_at, entry.span)
    counted = entry.of > 0
    return {
        "policy": entry.policy,
        "parameter": entry.parameter,
        "unit": entry.unit,
        "of": entry.of if counted else None,
        "asked": entry.asked,
        "asked (%)": _percent(entry.asked, entry.of),
        "hidden": entry.hidden if counted else None,
        "hidden (%)": _percent(entry.hidden, entry.of),
        "removable": entry.removable if counted else None,
        "inexact": entry.inexact if counted else None,
        "stays": entry.stays if counted else None,
        "why": entry.why,
        "first": first or "never",
        "last": last or "never",
    }


def _percent(part: int | None, whole: int) -> float | None:
    return None if part is None or not whole else 100 * part / whole


def _at(step: Step) -> str:
    return f"epoch {step.epoch}" + (f", minibatch {step.minibatch}" if step.minibatch else "")
