"""Figures that compare levels: final values, paired differences, pass@k over k, reliability, reward-entropy law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.page.figures import INK, base_figure, plain, whisker
from dashboards.page.palette import Style
from dashboards.statistics.intervals import Bounds, PairedEffect, bounded_interval
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY, SAMPLED_REWARD, evaluation_keys, suite_name
from dashboards.sweep.summary import LevelLaw, cell_finals, entropy_reward, final_table

_GREY = "#7b8794"


def final_by_level(sweep: SweepData, metric: str, styles: Sequence[Style]) -> go.Figure | None:
    """Final value against level: a point a seed (points of a seed joined by a thin line), mean and 95 % interval."""
    finals = cell_finals(sweep, metric)
    if finals.empty:
        return None
    name = sweep.describe(metric)
    figure = base_figure(
        f"Final {name.label[:1].lower()}{name.label[1:]} by level",
        sweep.factor.axis,
        name.unit or name.label,
        legend="",
    )
    for seed, rows in finals.groupby("seed"):
        figure.add_trace(
            go.Scatter(
                x=[plain(label) for label in rows["label"]],
                y=rows["value"].to_numpy(),
                mode="lines",
                line={"color": "#cbd2d9", "width": 1},
                hoverinfo="skip",
                showlegend=False,
                name=f"seed {seed}",
            )
        )
    for style in styles:
        rows = finals[finals["level"] == style.level]
        if len(rows):
            _add_level_points(figure, rows, style, name.range)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[plain(style.label) for style in styles])
    return figure


def _add_level_points(figure: go.Figure, rows: pd.DataFrame, style: Style, bounds: Bounds) -> None:
    interval, x = bounded_interval(rows["value"], bounds), plain(style.label)
    figure.add_trace(
        go.Scatter(
            x=[x] * len(rows),
            y=rows["value"].to_numpy(),
            mode="markers",
            legendgroup=style.level,
            name=x,
            showlegend=False,
            customdata=rows["seed"].to_numpy(),
            marker={"symbol": style.symbol + "-open", "size": 8, "color": style.color, "line": {"width": 1.5}},
            hovertemplate=f"<b>{x}</b><br>seed %{{customdata}}: %{{y:.4g}}<extra></extra>",
        )
    )
    limits = f"{interval.low:.4g} to {interval.high:.4g} (95 %)" if interval.count > 1 else "no interval from one seed"
    figure.add_trace(
        go.Scatter(
            x=[x],
            y=[interval.mean],
            mode="markers",
            name=x,
            legendgroup=style.level,
            showlegend=False,
            error_y=whisker(interval, style.color),
            marker={"symbol": style.symbol, "size": 12, "color": style.color},
            hovertemplate=f"<b>{x}</b><br>mean %{{y:.4g}}<br>{limits}<br>seeds: {interval.count}<extra></extra>",
        )
    )


def forest(
    sweep: SweepData, metric: str, effects: Sequence[tuple[str, PairedEffect]], styles: Sequence[Style]
) -> go.Figure | None:
    """Paired differences from the reference level with 95 % t intervals, one row a level, zero marked."""
    measured = [(label, effect) for label, effect in effects if effect.difference.count]
    if not measured:
        return None
    name, by_label = sweep.describe(metric), {style.label: style for style in styles}
    reference = next(style.label for style in styles if style.level == sweep.reference)
    figure = base_figure(
        "Paired differences",
        f"final value minus that of {reference} ({name.unit or name.label})",
        "",
        legend="",
        height=150 + 46 * len(measured),
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"})
    for label, effect in measured:
        style, interval = by_label[label], effect.difference
        figure.add_trace(
            go.Scatter(
                x=[interval.mean],
                y=[plain(label)],
                mode="markers",
                name=plain(label),
                legendgroup=style.level,
                showlegend=False,
                marker={"symbol": style.symbol, "size": 11, "color": style.color},
                error_x=whisker(interval, style.color),
                hovertemplate=(
                    f"<b>{plain(label)}</b> minus {plain(reference)}<br>%{{x:+.4g}}<br>"
                    f"{interval.low:+.4g} to {interval.high:+.4g} (95 %)<br>seeds: {interval.count}<extra></extra>"
                ),
            )
        )
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=[plain(label) for label, _ in reversed(measured)]
    )
    return figure


def pass_at_k(sweep: SweepData, suite: str, styles: Sequence[Style]) -> go.Figure | None:
    """pass@k of ``suite`` at the last evaluation against k (log axis), mean over completed seeds."""
    logged = [str(key) for key in sweep.metrics["metric"].unique()]
    keys = [item for item in evaluation_keys(logged) if item.suite == suite and item.kind == "pass"]
    if len(keys) < 2:
        return None
    figure = base_figure(
        f"pass@k at the end, {suite_name(suite)}",
        "k (samples per problem, log scale)",
        "fraction of problems",
        legend=sweep.factor.axis,
    )
    tables = [(final_table(sweep, item.key), sweep.describe(item.key).range) for item in keys]
    sizes = [item.k for item in keys]
    for style in styles:
        intervals = [bounded_interval(table[style.level], bounds) for table, bounds in tables]
        if not any(interval.count for interval in intervals):
            continue
        figure.add_trace(
            go.Scatter(
                x=sizes,
                y=[interval.mean for interval in intervals],
                mode="lines+markers",
                name=plain(style.label),
                legendgroup=style.level,
                line={"color": style.color, "dash": style.dash, "width": 2},
                marker={"symbol": style.symbol, "size": 8, "color": style.color},
                customdata=[[interval.low, interval.high, interval.count] for interval in intervals],
                hovertemplate=(
                    f"<b>{plain(style.label)}</b><br>pass@%{{x}}: %{{y:.4g}}<br>%{{customdata[0]:.4g}} to "
                    "%{customdata[1]:.4g} (95 %)<br>seeds: %{customdata[2]:.0f}<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(type="log", tickmode="array", tickvals=sizes, ticktext=[str(size) for size in sizes])
    return figure if figure.data else None


_CONFIDENCE = {"logprob": "confidence (exp of mean token log-prob)", "stated": "stated confidence"}


def reliability(
    sweep: SweepData, points: pd.DataFrame, suite: str, styles: Sequence[Style], kind: str = "logprob"
) -> go.Figure | None:
    """Accuracy against confidence per bin at the last evaluation, seeds pooled by count; the diagonal is perfect.
    ``kind`` of confidence: by ``logprob``, or as ``stated`` in the response."""
    rows = points[(points["suite"] == suite) & (points["count"] > 0) & (points["confidence_of"] == kind)]
    if rows.empty:
        return None
    rows = rows[rows["step"] == rows.groupby("signature")["step"].transform("max")]
    figure = base_figure(
        f"Reliability at the end, {suite_name(suite)}",
        _CONFIDENCE[kind],
        "accuracy (fraction correct)",
        legend=sweep.factor.axis,
    )
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": _GREY, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            name="perfect calibration",
        )
    )
    for style in styles:
        pooled = pool_bins(rows[rows["level"] == style.level])
        if pooled.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=pooled["confidence"].to_numpy(),
                y=pooled["accuracy"].to_numpy(),
                mode="lines+markers",
                name=plain(style.label),
                legendgroup=style.level,
                customdata=pooled["count"].to_numpy(),
                line={"color": style.color, "dash": style.dash, "width": 1.5},
                marker={"symbol": style.symbol, "color": style.color, "size": 8},
                hovertemplate=(
                    f"<b>{plain(style.label)}</b><br>confidence %{{x:.3f}}<br>accuracy %{{y:.3f}}<br>"
                    "%{customdata:.0f} responses<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1.02])
    return figure


def pool_bins(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a tenth of the confidence scale: confidence and accuracy weighted by count, and the count."""
    rows = rows.assign(bin=(rows["confidence"] * 10).clip(0, 9.999).astype("int64"))
    weighted = rows.assign(confidence=rows["confidence"] * rows["count"], accuracy=rows["accuracy"] * rows["count"])
    pooled = weighted.groupby("bin")[["confidence", "accuracy", "count"]].sum().reset_index()
    return pooled.assign(
        confidence=pooled["confidence"] / pooled["count"], accuracy=pooled["accuracy"] / pooled["count"]
    )


def reward_entropy(sweep: SweepData, laws: Sequence[LevelLaw], styles: Sequence[Style]) -> go.Figure | None:
    """Reward against entropy, a point a step (mean over seeds), with the fitted law of each level."""
    points = entropy_reward(sweep)
    if points.empty:
        return None
    figure = base_figure(
        "Reward against entropy",
        sweep.describe(ENTROPY).axis,
        sweep.describe(SAMPLED_REWARD).axis,
        legend=sweep.factor.axis,
        height=400,
    )
    fitted = {law.level: law for law in laws}
    for style in styles:
        rows = points[points["level"] == style.level].groupby("step")[["entropy", "reward"]].mean().reset_index()
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=rows["entropy"].to_numpy(),
                y=rows["reward"].to_numpy(),
                mode="markers",
                name=plain(style.label),
                legendgroup=style.level,
                customdata=rows["step"].to_numpy(),
                marker={"symbol": style.symbol, "size": 7, "color": style.fill(0.45)},
                hovertemplate=(
                    f"<b>{plain(style.label)}</b><br>step %{{customdata}}<br>entropy %{{x:.4g}}<br>"
                    "reward %{y:.4g}<extra></extra>"
                ),
            )
        )
        if law := fitted.get(style.level):
            grid = np.linspace(rows["entropy"].min(), rows["entropy"].max(), 50)
            figure.add_trace(
                go.Scatter(
                    x=grid,
                    y=law.reward(grid),
                    mode="lines",
                    line={"color": style.color, "dash": style.dash, "width": 2},
                    legendgroup=style.level,
                    showlegend=False,
                    name=plain(style.label),
                    hoverinfo="skip",
                )
            )
    return figure
