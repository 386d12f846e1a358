"""The style of each level, the same in every figure: levels differ in colour, dash and marker.

Ordered levels take evenly spaced colours of viridis (dark to mid, so that even the last is legible on white);
unordered ones take Okabe and Ito's colours. Both are safe for colour-blind readers.
"""

from __future__ import annotations

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
    names = list(zip(sweep.levels["level"], sweep.levels["label"], strict=True))
    return [
        Style(
            level=level,
            label=label,
            dash=_DASHES[position % len(_DASHES)],
            symbol=_SYMBOLS[position % len(_SYMBOLS)],
            color=_sequential(position, len(names)) if sweep.factor.ordered else _OKABE_ITO[position % len(_OKABE_ITO)],
        )
        for position, (level, label) in enumerate(names)
    ]


def _sequential(position: int, count: int) -> str:
    """Evenly spaced in the table; up to four levels stop before its lightest colours."""
    top = len(_VIRIDIS) - (2 if count <= 4 else 1)
    return _VIRIDIS[round(position * top / max(count - 1, 1))]
