"""The sparsity table: how much of each parameter is zero, by element and by structure."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from tabulate import tabulate
from torch import Tensor, nn

from potstill.thinning import unwrapped
from potstill.thinning.files.text import Lines, csv_text, markdown, printable

from .parameter_mask import ParameterMask

COLUMNS = (
    "Name",
    "Shape",
    "NNZ (dense)",
    "NNZ (sparse)",
    "Cols (%)",
    "Rows (%)",
    "Ch (%)",
    "2D (%)",
    "3D (%)",
    "Fine (%)",
    "Std",
    "Mean",
    "Abs-Mean",
)


def sparsity_table(model: nn.Module | Mapping[str, Tensor], all_parameters: bool = False) -> pd.DataFrame:
    """Return one row a parameter; `sparsity` gives the share of all parameters together.

    Percentages are of structures that are zero throughout: Cols are outputs and Rows inputs of a Linear, Ch input
    channels, 2D kernels and 3D filters of a convolution, Fine single elements. Std, mean and mean of absolute values
    are over all elements.

    Args:
        model: a network, or its parameters by name.
        all_parameters: give vectors (biases, norms) rows too.
    """
    parameters = dict(unwrapped(model).named_parameters()) if isinstance(model, nn.Module) else dict(model)
    with torch.no_grad():
        rows = [_row(name, p) for name, p in parameters.items() if all_parameters or p.dim() > 1]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def masks_table(model: nn.Module, masks: Mapping[str, ParameterMask]) -> pd.DataFrame:
    """Return how much of each parameter is hidden by its masks, in percent.

    Zeros that no mask keeps do not count. Vectors (biases, norms) have no rows; the line of `masks_text` counts them.

    Args:
        model: a network.
        masks: those of its parameters: `CompressionScheduler.masks`.
    """
    parameters = dict(unwrapped(model).named_parameters())
    rows = [[name, _percent(masks[name].hidden, p.numel())] for name, p in parameters.items() if p.dim() > 1]
    return pd.DataFrame(rows, columns=["Name", "Fine (%)"])


def sparsity(model: nn.Module | Mapping[str, Tensor]) -> float:
    """Share (0..1) of all parameters that are zero."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else list(model.values())
    total = sum(p.numel() for p in parameters)
    return 1 - sum(int(p.count_nonzero()) for p in parameters) / total if total else 0.0


def format_table(table: pd.DataFrame, form: str = "text") -> str:
    """Return the table as `text`, `csv`, `markdown` or `json` (a list of rows).

    Raises:
        ValueError: the form is none of these.
    """
    if form == "csv":
        return Lines(csv_text([list(table.columns), *table.to_numpy().tolist()]))
    if form == "json":
        return Lines(table.to_json(orient="records", indent=1))
    styles = {"text": "psql", "markdown": "github"}
    if form not in styles:
        raise ValueError(f"no form {form!r}: text, csv, markdown or json")
    show = markdown if form == "markdown" else printable
    heads, *rows = (
        [show(value) if isinstance(value, str) else value for value in row]
        for row in [list(table.columns), *table.to_numpy().tolist()]
    )
    text = tabulate(rows, headers=heads, tablefmt=styles[form], floatfmt=".5g", intfmt=",")
    return Lines(text, in_markdown=text if form == "markdown" else None)


def sparsity_text(model: nn.Module | Mapping[str, Tensor], form: str = "text", all_parameters: bool = False) -> str:
    """Return the sparsity table as text, with a line for all parameters together.

    As `text` it is short: without columns that say nothing. `csv` and `json` are for programs, and have no such line.
    """
    table = sparsity_table(model, all_parameters)
    if form == "text":
        table = _without_doubles(with_something_in(table))
    shown = format_table(table, form)
    return _with_line(shown, _total(model), form)


def masks_text(model: nn.Module, masks: Mapping[str, ParameterMask], form: str = "text") -> str:
    """Return the masks' table as text, with a line for all parameters together, but for `csv` and `json`."""
    sizes = sum(p.numel() for p in unwrapped(model).parameters())
    hidden = sum(mask.hidden for mask in masks.values())
    told = f"masked {_percent(hidden, sizes):.2f} % of {sizes:,} parameters"
    return _with_line(format_table(masks_table(model, masks), form), told, form)


def _with_line(table: str, line: str, form: str) -> str:
    """Return a table and, where it is for people, a line below it (without a gap Markdown takes it for a row)."""
    gaps = {"text": "\n", "markdown": "\n\n"}
    if form not in gaps:
        return table
    text = f"{table}{gaps[form]}{line}"
    return Lines(text, in_markdown=text if form == "markdown" else None)


def _total(model: nn.Module | Mapping[str, Tensor]) -> str:
    every = list(model.parameters()) if isinstance(model, nn.Module) else list(model.values())
    sizes = sum(p.numel() for p in every)
    mean = float(sum(p.detach().double().sum() for p in every)) / max(sizes, 1)
    return f"zeros {100 * sparsity(model):.2f} % of {sizes:,} parameters, mean {mean:.5g}"


def _without_doubles(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without columns that say what one before says."""
    names = list(table.columns)
    doubled = [name for n, name in enumerate(names) for other in names[:n] if table[name].equals(table[other])]
    return table.drop(columns=doubled)


def with_something_in(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without columns that are empty or 0 throughout; what is missing elsewhere becomes empty text."""
    full = table.astype(object).where(table.notna(), "")
    kept = [column for column in full.columns if any(value not in ("", 0) for value in full[column])]
    return full[kept]


def _row(name: str, parameter: Tensor) -> dict[str, object]:
    nonzero = int(parameter.count_nonzero())
    row: dict[str, object] = dict.fromkeys(COLUMNS, 0.0)
    row |= {"Name": name, "Shape": str(tuple(parameter.shape))}
    row |= {"NNZ (dense)": parameter.numel(), "NNZ (sparse)": nonzero}
    row["Fine (%)"] = _percent(parameter.numel() - nonzero, parameter.numel())
    zero = parameter == 0 if nonzero < parameter.numel() else None
    if zero is not None and parameter.dim() == 2:
        row |= {"Cols (%)": _share(zero.all(1)), "Rows (%)": _share(zero.all(0))}
    elif zero is not None and parameter.dim() > 2:
        kernels = zero.flatten(2).all(2)
        row |= {"Ch (%)": _share(kernels.all(0)), "2D (%)": _share(kernels), "3D (%)": _share(kernels.all(1))}
    row["Mean"] = float(parameter.mean())
    row["Std"] = float(parameter.std()) if parameter.numel() > 1 else 0.0
    row["Abs-Mean"] = float(torch.linalg.vector_norm(parameter, 1)) / max(parameter.numel(), 1)
    return row


def _share(zero: Tensor) -> float:
    return _percent(int(zero.count_nonzero()), zero.numel())


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
