"""Curves of a metric over training steps, and the layout that all figures share.

A function returns None where nothing was logged. Labels are escaped by :func:`plain`, because plotly interprets some
HTML tags in text; the page itself is escaped by its template.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.page.palette import Style
from dashboards.statistics.intervals import UNBOUNDED, Bounds, Interval, bounded_interval
from dashboards.sweep.load import SweepData

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = "#1f2933"
_GRID = "#e8ebef"
CLEAR = "rgba(0,0,0,0)"
"""Figures have no ground of their own: that of the page, light or dark, is seen through them."""
MOST_STEPS = 200
"""Points of a curve: a figure is about 500 pixels wide."""
MIN_SEEDS_FOR_INTERVAL = 5
"""From this many seeds on a band is the 95 % interval of the mean; with fewer it spans the range over seeds."""


def plain(text: str) -> str:
    """Text with HTML escaped, which plotly would otherwise interpret."""
    return html.escape(text, quote=False)


def base_figure(title: str, x_title: str, y_title: str, *, legend: str, height: int = 320) -> go.Figure:
    """An empty figure with the shared layout; ``legend`` is the title of the legend. The page shows ``title`` above the
    figure, and within it only where the reader saves an image."""
    axis = {
        "gridcolor": _GRID,
        "zeroline": False,
        "linecolor": "#9aa5b1",
        "ticks": "outside",
        "tickcolor": "#9aa5b1",
        "automargin": True,
        "exponentformat": "power",
        "tickfont": {"size": 12},
    }
    figure = go.Figure()
    figure.update_layout(
        title={"text": plain(title), "font": {"size": 15}},
        xaxis={**axis, "title": {"text": plain(x_title), "standoff": 8, "font": {"size": 13}}},
        yaxis={**axis, "title": {"text": plain(y_title), "standoff": 8, "font": {"size": 13}}},
        font={"family": FONT, "size": 13, "color": INK},
        height=height,
        margin={"l": 64, "r": 16, "t": 30, "b": 48},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        modebar={"bgcolor": CLEAR, "color": "#9aa5b1", "activecolor": "#52606d"},
        hovermode="closest",
        legend={"title": {"text": plain(legend), "font": {"size": 13}}, "tracegroupgap": 2},
        hoverlabel={"font": {"family": FONT, "size": 12}, "bgcolor": "#ffffff"},
    )
    return figure


def seed_curve(points: pd.DataFrame, bounds: Bounds = UNBOUNDED) -> pd.DataFrame:
    """One row a step: mean, low, high and the number of seeds n, from the points (step, value) of one level.

    Low and high are the range over seeds below 5 of them, from 5 on the 95 % t interval within ``bounds``.
    """
    grouped = points.dropna(subset=["value"]).groupby("step")["value"]
    frame = grouped.agg(mean="mean", low="min", high="max", n="count").reset_index()
    if len(frame) and frame["n"].max() >= MIN_SEEDS_FOR_INTERVAL:
        intervals = [bounded_interval(values, bounds) for _, values in grouped]
        frame["low"], frame["high"] = [item.low for item in intervals], [item.high for item in intervals]
    return frame


def curve(sweep: SweepData, metric: str, styles: Sequence[Style], *, title: str = "") -> go.Figure | None:
    """``metric`` against step: mean over seeds with a band, one line a level, every cell that logged it. None where it
    was logged at fewer than two steps: a curve of one point says nothing."""
    points = sweep.metrics[sweep.metrics["metric"] == metric]
    name = sweep.describe(metric)
    figure = level_curves(points, styles, title or name.label, name.unit or name.label, sweep.factor.axis, name.range)
    if figure is not None:
        figure.update_layout(meta=[metric])
    return figure


def level_curves(
    points: pd.DataFrame, styles: Sequence[Style], title: str, y_title: str, legend: str, bounds: Bounds = UNBOUNDED
) -> go.Figure | None:
    """Value against step from points (level, step, value, one a seed); None below two steps with a value."""
    points = points[points["value"].notna()]
    if points["step"].nunique() < 2:
        return None
    figure = base_figure(title, "training step", y_title, legend=legend)
    if points["step"].max() <= 10:  # whole steps only
        figure.update_xaxes(dtick=1)
    if points["value"].min() >= 0:
        figure.update_yaxes(rangemode="nonnegative")
    for style in styles:
        frame = thinned(seed_curve(points[points["level"] == style.level], bounds))
        if len(frame):
            add_band(figure, frame, style)
            figure.add_trace(_line(frame, style))
    return figure


def thinned(frame: pd.DataFrame, most: int = MOST_STEPS) -> pd.DataFrame:
    """At most ``most`` rows of a curve: of each of ``most / 2`` stretches of steps the one with the lowest and the one
    with the highest mean, so that no spike is lost; first and last row stay."""
    if len(frame) <= most:
        return frame
    stretches = np.array_split(np.arange(1, len(frame) - 1), most // 2 - 1)
    mean = frame["mean"].to_numpy()
    kept = {0, len(frame) - 1}
    for stretch in stretches:
        kept |= {int(stretch[mean[stretch].argmin()]), int(stretch[mean[stretch].argmax()])}
    return frame.iloc[sorted(kept)].reset_index(drop=True)


def add_band(figure: go.Figure, frame: pd.DataFrame, style: Style) -> None:
    """Add a band between ``low`` and ``high`` at the steps with more than one seed."""
    banded = frame[frame["n"] > 1]
    if banded.empty:
        return
    outline = pd.concat([banded["high"], banded["low"][::-1]])
    figure.add_trace(
        go.Scatter(
            x=pd.concat([banded["step"], banded["step"][::-1]]).to_numpy(),
            y=outline.to_numpy(),
            fill="toself",
            fillcolor=style.fill(0.14),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            legendgroup=style.level,
            name=plain(style.label),
        )
    )


def _line(frame: pd.DataFrame, style: Style) -> go.Scatter:
    # About six markers on a long line: enough to tell lines apart, too few to hide them. 0 shows every marker.
    markers = 0 if len(frame) <= 12 else 7
    return go.Scatter(
        x=frame["step"].to_numpy(),
        y=frame["mean"].to_numpy(),
        name=plain(style.label),
        legendgroup=style.level,
        mode="lines+markers",
        line={"color": style.color, "dash": style.dash, "width": 2},
        marker={"symbol": style.symbol, "size": 7, "color": style.color, "maxdisplayed": markers},
        customdata=frame[["low", "high", "n"]].to_numpy(dtype="float64"),
        hovertemplate=(
            f"<b>{plain(style.label)}</b><br>step %{{x}}: %{{y:.4g}}<br>"
            "%{customdata[0]:.4g} to %{customdata[1]:.4g}<br>seeds: %{customdata[2]:.0f}<extra></extra>"
        ),
    )


def whisker(interval: Interval, color: str) -> dict[str, object]:
    """An error bar from end to end of the interval; none where there is no interval."""
    return {
        "type": "data",
        "array": [interval.high - interval.mean],
        "arrayminus": [interval.mean - interval.low],
        "color": color,
        "thickness": 2,
        "width": 7,
        "visible": interval.high > interval.low,
    }


def band_note(sweep: SweepData) -> str:
    """The caption that says what a band in this sweep's figures is."""
    seeds = sweep.cells.groupby("level")["seed"].nunique().max()
    if seeds < 2:
        return "Lines are single runs: one seed has no band."
    if seeds < MIN_SEEDS_FOR_INTERVAL:
        return f"Lines are means over seeds; bands span the lowest to the highest of the {seeds} seeds."
    return "Lines are means over seeds; bands are 95 % t intervals of the mean."
