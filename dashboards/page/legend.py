"""The legend of a page: each level's line and marker as inline SVG, drawn like plotly's.

The SVG contains only styles of the palette and no text from a run, so it needs no escaping.
"""

from __future__ import annotations

from markupsafe import Markup

from dashboards.page.palette import Style, tones

_DASH_ARRAYS = {
    "solid": "",
    "dash": "6 4",
    "dot": "2 3",
    "dashdot": "6 3 2 3",
    "longdash": "10 4",
    "longdashdot": "10 3 2 3",
}
_SHAPES = {
    "circle": '<circle cx="17" cy="7" r="4"/>',
    "square": '<rect x="13.3" y="3.3" width="7.4" height="7.4"/>',
    "diamond": '<path d="M17 2l5 5-5 5-5-5z"/>',
    "triangle-up": '<path d="M17 2.2l4.8 8.3h-9.6z"/>',
    "x": '<path d="M13 4.6l1.6-1.6 2.4 2.4 2.4-2.4 1.6 1.6-2.4 2.4 2.4 2.4-1.6 1.6-2.4-2.4-2.4 2.4-1.6-1.6 2.4-2.4z"/>',
    "triangle-down": '<path d="M17 11.8l4.8-8.3h-9.6z"/>',
    "pentagon": '<path d="M17 2.4l4.8 3.5-1.8 5.6h-6l-1.8-5.6z"/>',
    "star": '<path d="M17 1.6l1.5 3.6 3.9.3-3 2.5.9 3.8-3.3-2-3.3 2 .9-3.8-3-2.5 3.9-.3z"/>',
    "cross": '<path d="M15.6 2.4h2.8v3.2h3.2v2.8h-3.2v3.2h-2.8v-3.2h-3.2v-2.8h3.2z"/>',
    "hexagon": '<path d="M17 2.2l4.3 2.4v4.8l-4.3 2.4-4.3-2.4v-4.8z"/>',
}


def legend_mark(style: Style) -> Markup:
    """An inline drawing of the level's line and marker."""
    return Markup(
        '<svg class="mark" style="{tones}" width="34" height="14" aria-hidden="true" '
        'fill="currentColor" stroke="none"><line x1="0" y1="7" x2="34" y2="7" stroke="currentColor" stroke-width="2" '
        'stroke-dasharray="{dash}"/>{shape}</svg>'
    ).format(
        tones=tones(style.color),
        dash=_DASH_ARRAYS[style.dash],
        shape=Markup(_SHAPES[style.symbol]),
    )
