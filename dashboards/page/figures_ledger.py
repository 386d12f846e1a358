"""Figures of the entropy ledger: cumulated by cause, learning against noise, prediction, ranking of the estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.page.figures import INK, base_figure, level_curves, plain, whisker
from dashboards.page.palette import Style
from dashboards.sweep.ledger import PARTS, QUADRANTS, Account, Prediction, RankedEstimator
from dashboards.sweep.load import SweepData

COLORS: Mapping[str, str] = {
    "positive_likely": "#0072b2",
    "positive_unlikely": "#56b4e9",
    "negative_likely": "#d55e00",
    "negative_unlikely": "#e69f00",
    "unsampled": "#e4e7eb",
    "regularizers": "#cc79a7",
    "momentum": "#009e73",
    "weight_decay": "#8c6d31",
    "residual": "#4b0a5f",
    "elsewhere": "#b8c0c9",
}
"""Of each part of the account: Okabe and Ito's for the causes, greys for what is not accounted for."""
MOST_LEVELS = 6
"""Levels whose account is drawn; with more of them, the first and the last."""
_MOST_BARS = 80


def parts_shown(accounts: Sequence[Account]) -> list[str]:
    """The parts that are not 0 in every run, in the order of the account."""
    return [part for part in PARTS if any((account.parts[part] != 0).any() for account in accounts)]


def cumulated(sweep: SweepData, accounts: Sequence[Account], styles: Sequence[Style]) -> list[go.Figure]:
    """One figure a level: each part's cumulated contribution as a band, stacked away from 0, and the change of entropy
    as a line; means over seeds, one scale for all levels."""
    by_level = {style: [account for account in accounts if account.level == style.level] for style in styles}
    drawn_styles = [style for style in styles if by_level[style]]
    if len(drawn_styles) > MOST_LEVELS:
        drawn_styles = [drawn_styles[0], drawn_styles[-1]]
    parts = parts_shown(accounts)
    figures, reach = [], [0.0]
    for style in drawn_styles:
        mean = _mean([account.parts for account in by_level[style]])
        change = _mean([account.change.to_frame() for account in by_level[style]]).iloc[:, 0]
        reach += [mean.clip(lower=0).sum(axis=1).max(), mean.clip(upper=0).sum(axis=1).min()]
        figures.append(_bands(f"{sweep.factor.label} {style.label}", mean, change, parts))
    for figure in figures:
        figure.update_yaxes(range=[1.05 * min(reach), 1.05 * max(reach)])
    return figures


def _mean(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean over runs at every step that all of them reached."""
    last = min(frame.index.max() for frame in frames)
    return pd.concat([frame.loc[:last] for frame in frames]).groupby(level=0).mean()


def _bands(title: str, mean: pd.DataFrame, change: pd.Series, parts: Sequence[str]) -> go.Figure:
    figure = base_figure(title, "training step", "change of entropy (nats)", legend="", height=330)
    figure.update_layout(barmode="relative", bargap=0, meta=[f"ledger/{part}" for part in parts])
    steps = np.unique(np.linspace(mean.index.min() + 1, mean.index.max(), _MOST_BARS).round().astype(int))
    for part in parts:
        figure.add_trace(
            go.Bar(
                x=steps,
                y=mean.loc[steps, part].to_numpy(),
                name=plain(PARTS[part]),
                marker={"color": COLORS[part], "line": {"width": 0}},
                hovertemplate=f"<b>{plain(PARTS[part])}</b><br>before step %{{x}}: %{{y:+.3g}} nats<extra></extra>",
            )
        )
    logged = change.dropna()
    figure.add_trace(
        go.Scatter(
            x=logged.index.to_numpy(),
            y=logged.to_numpy(),
            mode="lines",
            name="entropy of the rollouts",
            line={"color": INK, "width": 2.5},
            hovertemplate="<b>entropy of the rollouts</b><br>step %{x}: %{y:+.3g} nats<extra></extra>",
        )
    )
    return figure


def quadrant_curves(sweep: SweepData, accounts: Sequence[Account], styles: Sequence[Style]) -> list[go.Figure]:
    """What each quadrant of the policy term did to the entropy, cumulated: a figure a quadrant, a line a level."""
    figures = []
    for quadrant in QUADRANTS:
        points = [
            account.parts[quadrant].rename("value").rename_axis("step").reset_index().assign(level=account.level)
            for account in accounts
        ]
        title = PARTS[quadrant][:1].upper() + PARTS[quadrant][1:]
        y_title = "change of entropy (nats)"
        figure = level_curves(pd.concat(points), styles, title, y_title, sweep.factor.axis) if points else None
        if figure is not None:
            figure.update_layout(meta=[f"ledger/{quadrant}"])
            figures.append(figure)
    return figures


def learning_and_noise(sweep: SweepData, accounts: Sequence[Account], styles: Sequence[Style]) -> go.Figure | None:
    """The cumulated policy term by what two halves of the prompts agree on: one solid and one dotted line a level."""
    if not any(account.halves.to_numpy().any() for account in accounts):
        return None
    title = "Policy term: learning and noise"
    figure = base_figure(title, "training step", "change of entropy (nats)", legend=sweep.factor.axis)
    figure.update_layout(meta=["ledger/policy_agreed", "ledger/policy_noise"])
    for style in styles:
        of_level = [account.halves for account in accounts if account.level == style.level]
        if not of_level:
            continue
        mean = _mean(of_level)
        for half, dash in (("learning", "solid"), ("noise", "dot")):
            figure.add_trace(
                go.Scatter(
                    x=mean.index.to_numpy(),
                    y=mean[half].to_numpy(),
                    mode="lines",
                    name=f"{plain(style.label)}, {half}",
                    legendgroup=style.level,
                    line={"color": style.color, "dash": dash, "width": 2},
                    hovertemplate=(
                        f"<b>{plain(style.label)}, {half}</b><br>step %{{x}}: %{{y:+.3g}} nats<extra></extra>"
                    ),
                )
            )
    return figure


def measured_against_predicted(
    sweep: SweepData, points: pd.DataFrame, fit: Prediction | None, styles: Sequence[Style]
) -> go.Figure | None:
    """A mark a step with a ledger; on the dotted line the first order is exact, the solid one is the fit to all."""
    if fit is None:
        return None
    figure = base_figure(
        "Measured against predicted change",
        "predicted, first order (nats)",
        "measured (nats)",
        legend=sweep.factor.axis,
    )
    diagonal = np.array(
        [points[["predicted", "measured"]].to_numpy().min(), points[["predicted", "measured"]].to_numpy().max()]
    )
    middle, slope = points[["predicted", "measured"]].mean(), fit.slope.mean
    for line, dash, width in (
        (diagonal, "dot", 1.0),
        (middle["measured"] + slope * (diagonal - middle["predicted"]), "solid", 1.5),
    ):
        figure.add_trace(
            go.Scatter(
                x=diagonal,
                y=line,
                mode="lines",
                line={"color": INK, "dash": dash, "width": width},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    for style in styles:
        rows = points[points["level"] == style.level]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=rows["predicted"].to_numpy(),
                y=rows["measured"].to_numpy(),
                mode="markers",
                name=plain(style.label),
                legendgroup=style.level,
                customdata=rows[["seed", "step"]].to_numpy(),
                marker={"symbol": style.symbol, "size": 7, "color": style.fill(0.55)},
                hovertemplate=(
                    f"<b>{plain(style.label)}</b>, seed %{{customdata[0]}}, step %{{customdata[1]}}<br>"
                    "predicted %{x:+.3g}, measured %{y:+.3g} nats<extra></extra>"
                ),
            )
        )
    return figure


def estimator_ranking(ranked: Sequence[RankedEstimator]) -> go.Figure | None:
    """Correlation with the influence, best on top: the mean with its interval over runs, and the spread over steps."""
    if not ranked:
        return None
    figure = base_figure(
        "Estimators of influence",
        "correlation with the influence of tokens",
        "",
        legend="",
        height=130 + 34 * len(ranked),
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"})
    for item in ranked:
        name = plain(item.words)
        low, high = item.steps
        figure.add_trace(
            go.Scatter(
                x=[low, high],
                y=[name, name],
                mode="lines",
                line={"color": "#cbd2d9", "width": 6},
                hoverinfo="skip",
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[item.correlation.mean],
                y=[name],
                mode="markers",
                showlegend=False,
                marker={"size": 10, "color": "#0072b2"},
                error_x=whisker(item.correlation, "#0072b2"),
                hovertemplate=(
                    f"<b>{name}</b><br>%{{x:.3f}}<br>{item.correlation.low:.3f} to {item.correlation.high:.3f} "
                    f"(95 %, {item.correlation.count} runs)<br>steps: {low:.2f} to {high:.2f}<extra></extra>"
                ),
            )
        )
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=[plain(item.words) for item in reversed(ranked)]
    )
    return figure
