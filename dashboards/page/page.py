"""Renders a page as one self-contained HTML file: template, CSS, plotly.js, figures as JSON.

Responses of a model are untrusted text. The template escapes every string, the JSON cannot close its script element,
and a content security policy allows only the page's own scripts, by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dashboards.statistics import format as text

_TEMPLATES = Path(__file__).parent.parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure on a page with its caption."""

    figure: go.Figure
    caption: str = ""
    wide: bool = False
    """Whether it takes the full width instead of one of two columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with its figures."""

    id: str
    title: str
    intro: str = ""
    panels: Sequence[Panel] = field(default_factory=tuple)


def render(template: str, context: Mapping[str, Any], *, with_figures: bool, more_scripts: Sequence[str] = ()) -> str:
    """The HTML of a page. ``context`` may hold :class:`Section` objects, whose figures page.js draws. ``more_scripts``
    are files of the templates folder."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "signed": text.signed,
        "interval": text.interval_text,
        "p_number": text.p_number,
        "figure_json": figure_json,
        "inert_json": inert_json,
    }
    names = [*(["page.js"] if with_figures else []), *more_scripts]
    scripts = [(_TEMPLATES / name).read_text(encoding="utf-8") for name in names]
    if with_figures:
        scripts.insert(0, plotly_js())
    return environment.get_template(template).render(
        **context,
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        policy=content_policy(scripts),
    )


def plotly_js() -> str:
    """The source of the installed plotly's plotly.js, checked to contain no closing script tag."""
    from plotly.offline import get_plotlyjs

    script = str(get_plotlyjs()).replace("\r\n", "\n").strip()
    if "</script" in script.lower():
        raise ValueError("the installed plotly.js contains a closing script tag and cannot be embedded in a page")
    return script


def content_policy(scripts: Sequence[str]) -> str:
    """A content security policy that forbids all network access and allows only these scripts, by SHA-256."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that may stand inside a script element."""
    return inert_json(figure.to_json() or "{}")


def inert_json(document: str) -> Markup:
    """JSON that may stand inside a script element: no character of it can open or close a tag."""
    for character in "<>&\u2028\u2029":
        document = document.replace(character, f"\\u{ord(character):04x}")
    return Markup(document)


def write_atomically(content: str, path: Path) -> Path:
    """Write ``content`` so that ``path`` holds either its old content or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
