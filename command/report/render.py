"""Templates to one HTML file: names escaped, scripts and styles inside and allowed by their digests alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from potstill.thinning.files.text import shown

TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}';"
    " base-uri 'none'; form-action 'none'"
)
"""Nothing is fetched, and of scripts only ours runs, whatever a name in the data holds (Content Security Policy 3)."""


def page(template: str, data: Mapping[str, Any]) -> str:
    """Return the text of a page.

    Args:
        template: file in `templates/`.
        data: plain values by name; each text is shown on one line, but for `Lines`, and escaped.
    """
    style, script = (_file(name) for name in ("style.css", "table.js"))
    policy = POLICY.format(_digest(style), _digest(script))
    return _environment().get_template(template).render(data, style=Markup(style), script=Markup(script), policy=policy)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(number=number, places=places)
    return found


def _finalize(value: Any) -> Any:
    """Return what stands in the page for a value: of texts what prints, nothing for what is not known."""
    if value is None:
        return ""
    return value if isinstance(value, Markup) else shown(value)


def number(value: Any) -> str:
    """Return a number as tables have it: whole ones with commas, others with four digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def places(value: float | None, count: int = 2) -> str:
    """Return a number with so many decimals, `-` where it is not known."""
    return "-" if value is None else f"{value:,.{count}f}"


@cache
def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
