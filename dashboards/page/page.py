"""Renders a page as one self-contained HTML file: template, CSS, plotly.js and figures, these two compressed.

Responses of a model are untrusted text. The template escapes every string, data are packed as base64, and a content
security policy allows only the page's own scripts, by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dashboards.page.packing import compact_json, figure_document, packed
from dashboards.page.palette import DARK, tones
from dashboards.statistics import format as text

_TEMPLATES = Path(__file__).parent.parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure on a page with its caption."""

    figure: go.Figure
    caption: str = ""
    wide: bool = False
    """Whether it takes the full width instead of one of two columns."""

    @property
    def title(self) -> str:
        """The figure's title, which the page shows as a heading: it wraps there, and no button covers it."""
        return html.unescape(self.figure.layout.title.text or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with its figures."""

    id: str
    title: str
    intro: str = ""
    panels: Sequence[Panel] = field(default_factory=tuple)


def render(template: str, context: Mapping[str, Any], *, with_figures: bool, more_scripts: Sequence[str] = ()) -> str:
    """The HTML of a page. The figures of the :class:`Section` objects in ``context["sections"]`` are drawn by page.js.
    ``more_scripts`` are files of the templates folder."""
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
        "packed": packed,
        "tones": tones,
    }
    names = [*(["page.js"] if with_figures else []), *more_scripts]
    scripts = [(_TEMPLATES / name).read_text(encoding="utf-8") for name in (["unpack.js", *names] if names else [])]
    plotly = plotly_js() if with_figures else ""
    return environment.get_template(template).render(
        **context,
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        policy=content_policy([*scripts, plotly] if plotly else scripts),
        plotly=packed(plotly) if plotly else "",
        figures_data=packed(figures_json(context["sections"])) if plotly else "",
    )


def figures_json(sections: Sequence[Section]) -> str:
    """The figures of a page by the id of their place, and the dark counterparts of their colours."""
    figures = {
        figure_id(number, position): figure_document(panel.figure)
        for number, section in enumerate(sections, start=1)
        for position, panel in enumerate(section.panels, start=1)
    }
    return compact_json({"figures": figures, "dark": dict(DARK)})


def figure_id(section: int, position: int) -> str:
    """The id of a figure's place, both counted from 1; the template writes the same."""
    return f"figure-{section}-{position}"


def plotly_js() -> str:
    """The source of the installed plotly's plotly.js."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("\r\n", "\n").strip()


def content_policy(scripts: Sequence[str]) -> str:
    """A content security policy that forbids all network access and allows only these scripts, by SHA-256."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
