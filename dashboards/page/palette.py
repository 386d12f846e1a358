"""The style of each level, the same in every figure: levels differ in colour, dash and marker.

Ordered levels take evenly spaced colours of viridis (dark to mid, so that even the last is legible on white);
unordered ones take Okabe and Ito's colours. Both are safe for colour-blind readers. Figures are made in these colours;
on a dark screen the page takes for each its counterpart in :data:`DARK`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboards.sweep.load import SweepData

# Viridis at 0, 1/11, ..., 9/11 of its range; the pale yellow end is left out.
_VIRIDIS = (
    "#440154",
    "#482173",
    "#433e85",
    "#38588c",
    "#2d708e",
    "#25858e",
    "#1e9b8a",
    "#2ab07f",
    "#52c569",
    "#86d549",
)
# Okabe and Ito 2008, without yellow (illegible as a line on white), black last.
_OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
# Viridis at 0.36 to 1: the same order of lightness, all of it legible on a dark page.
_VIRIDIS_ON_DARK = (
    "#2e6e8e",
    "#277f8e",
    "#22918b",
    "#23a286",
    "#31b27c",
    "#4ec16a",
    "#74cf54",
    "#a1da38",
    "#cfe129",
    "#fde725",
)
DARK: Mapping[str, str] = {
    **dict(zip(_VIRIDIS, _VIRIDIS_ON_DARK, strict=True)),
    "#0072b2": "#3d9be0",
    "#000000": "#ffffff",
    "#b26f00": "#d28a1c",
    "#8c6d31": "#b3904f",
    "#4b0a5f": "#b783d6",
    "#08519c": "#4f94d4",
    "#1f2933": "#e4e7eb",
    "#52606d": "#b8c0c9",
    "#7b8794": "#8b97a3",
    "#9aa5b1": "#66727f",
    "#9fb3c8": "#6d8299",
    "#b8c0c9": "#6b7784",
    "#cbd2d9": "#4a5561",
    "#e4e7eb": "#3a444f",
    "#e8ebef": "#2b333c",
    "#ffffff": "#1b2129",
}
"""Colours of figures and their counterparts on a dark page; any other colour is legible on both."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "pentagon", "star", "cross", "hexagon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a level is drawn."""

    level: str
    label: str
    color: str
    """#rrggbb."""
    dash: str
    symbol: str

    def fill(self, opacity: float) -> str:
        """The colour as rgba(...) for a band."""
        red, green, blue = (int(self.color[start : start + 2], 16) for start in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity})"


def level_styles(sweep: SweepData) -> list[Style]:
    """One style a level, in level order."""
    return styles_of(list(zip(sweep.levels["level"], sweep.levels["label"], strict=True)), ordered=sweep.factor.ordered)


def styles_of(names: Sequence[tuple[str, str]], *, ordered: bool) -> list[Style]:
    """One style for each (level, label)."""
    return [
        Style(
            level=level,
            label=label,
            dash=_DASHES[position % len(_DASHES)],
            symbol=_SYMBOLS[position % len(_SYMBOLS)],
            color=_sequential(position, len(names)) if ordered else _OKABE_ITO[position % len(_OKABE_ITO)],
        )
        for position, (level, label) in enumerate(names)
    ]


def _sequential(position: int, count: int) -> str:
    """Evenly spaced in the table; up to four levels stop before its lightest colours."""
    top = len(_VIRIDIS) - (2 if count <= 4 else 1)
    return _VIRIDIS[round(position * top / max(count - 1, 1))]


def tones(color: str) -> str:
    """A colour of a figure as the CSS variables of which the page takes one, on light or dark ground."""
    return f"--light: {color}; --dark: {DARK.get(color, color)}"
