"""Figures of the course of a search: history, intermediate values, timeline, importances, confirmation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go

from dashboards.page.figures import INK, base_figure, plain, whisker
from dashboards.search.confirm import TunedComparison
from dashboards.search.load import COMPLETE, FAILED, PRUNED, RUNNING, WAITING, SearchData, TrialRecord
from dashboards.search.outcome import Importance, best_so_far, front


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How trials of a state are drawn: colour and symbol together, never colour alone (Okabe and Ito 2008)."""

    label: str
    color: str
    symbol: str


MARKS: Mapping[str, Mark] = {
    COMPLETE: Mark(label="complete", color="#0072b2", symbol="circle"),
    PRUNED: Mark(label="pruned", color="#b26f00", symbol="x"),
    FAILED: Mark(label="failed", color="#d55e00", symbol="triangle-down"),
    RUNNING: Mark(label="running", color="#7b8794", symbol="diamond-open"),
    WAITING: Mark(label="waiting", color="#7b8794", symbol="circle-open"),
}
BEST = "#009e73"
_GREY = "#7b8794"


def short_name(key: str, keys: Sequence[str]) -> str:
    """The last two parts of a key, or all of it where another of ``keys`` ends the same."""
    tail = ".".join(key.split(".")[-2:])
    return key if sum(".".join(other.split(".")[-2:]) == tail for other in keys) > 1 else tail


def value_text(value: object) -> str:
    """A parameter's value with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def trial_text(trial: TrialRecord) -> str:
    """The hover text of a trial, escaped for plotly."""
    lines = [f"<b>trial {trial.number}</b> ({MARKS[trial.state].label})"]
    lines += [f"{plain(key)} = {plain(value_text(value))}" for key, value in trial.params.items()]
    return "<br>".join([*lines, plain(trial.reason)] if trial.reason else lines)


def history(search: SearchData, position: int = 0) -> go.Figure | None:
    """Value against trial number, every state with its own mark, and the best value so far as a line.

    Trials without a value stand at the bottom of the figure.
    """
    if not search.trials:
        return None
    objective = search.objectives[position]
    figure = base_figure(f"{objective.label} by trial", "trial", objective.axis, legend="Trials", height=380)
    known = [value for trial in search.trials if not math.isnan(value := _value_or_reported(trial, position))]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    bottom = low - 0.08 * ((high - low) or abs(high) or 1.0)
    if best := best_so_far(search, position):
        best.append((search.trials[-1].number, best[-1][1]))
        figure.add_trace(
            go.Scatter(
                x=[number for number, _ in best],
                y=[value for _, value in best],
                mode="lines",
                name="best so far",
                line={"color": BEST, "width": 2, "shape": "hv"},
                hoverinfo="skip",
            )
        )
    for state, mark in MARKS.items():
        if rows := search.of_state(state):
            positions_on_axis = [_value_or_reported(trial, position) for trial in rows]
            figure.add_trace(
                go.Scatter(
                    x=[trial.number for trial in rows],
                    y=[bottom if math.isnan(y) else y for y in positions_on_axis],
                    mode="markers",
                    name=mark.label,
                    marker={"symbol": mark.symbol, "color": mark.color, "size": 9},
                    text=[trial_text(trial) for trial in rows],
                    hovertemplate="%{text}<br>" + plain(objective.label) + " %{y:.4g}<extra></extra>",
                )
            )
    figure.update_layout(meta=[objective.metric])
    figure.update_xaxes(range=[-0.7, search.trials[-1].number + 0.7], tick0=0)
    if len(search.trials) <= 10:
        figure.update_xaxes(dtick=1)
    return figure


def _value_or_reported(trial: TrialRecord, position: int) -> float:
    """The trial's value, or the newest value it reported; NaN without any."""
    if len(trial.values) > position:
        return trial.values[position]
    return trial.intermediate[max(trial.intermediate)] if trial.intermediate else math.nan


def intermediate(search: SearchData) -> go.Figure | None:
    """Reported value against training step, a line a trial; pruned ones end in a cross."""
    reporting = [trial for trial in search.trials if trial.intermediate]
    if not reporting:
        return None
    best = {trial.number for trial in front(search)} if search.single else set()
    metric = search.settings.get("prune_metric") or search.objectives[0].label
    figure = base_figure("Values reported while training", "training step", str(metric), legend="Trials", height=400)
    in_legend: set[str] = set()
    for trial in sorted(reporting, key=lambda trial: (trial.number in best, trial.state != COMPLETE)):
        mark, is_best = MARKS[trial.state], trial.number in best
        group = "best" if is_best else mark.label
        steps = sorted(trial.intermediate)
        markers = {"symbol": mark.symbol, "color": mark.color, "size": [0] * (len(steps) - 1) + [9]}
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=[trial.intermediate[step] for step in steps],
                name=group,
                legendgroup=group,
                mode="lines+markers",
                showlegend=group not in in_legend,
                opacity=1.0 if is_best else 0.6,
                marker=markers,
                line={
                    "color": BEST if is_best else mark.color,
                    "width": 3 if is_best else 1.2,
                    "dash": "dot" if trial.state == PRUNED else "solid",
                },
                text=[trial_text(trial)] * len(steps),
                hovertemplate="%{text}<br>step %{x}: %{y:.4g}<extra></extra>",
            )
        )
        in_legend.add(group)
    return figure


def timeline(search: SearchData) -> go.Figure | None:
    """Optuna's own timeline of trials, in this project's colours."""
    begun = [trial for trial in search.frozen if trial.datetime_start is not None]
    if not begun:
        return None
    study = optuna.create_study(
        directions=["maximize" if objective.maximize else "minimize" for objective in search.objectives]
    )
    study.add_trials(begun)
    optuna_figure = optuna.visualization.plot_timeline(study)
    height = min(680, 150 + 13 * len(begun))
    figure = base_figure("", "time", "trial", legend="Trials", height=height)
    for trace in optuna_figure.data:
        if len(trace.y or ()):
            mark = MARKS[str(trace.name)]
            hover = f"%{{text}} ({mark.label})<br>begun %{{base|%d %b %H:%M:%S}}<extra></extra>"
            trace.update(
                name=mark.label,
                marker_color=mark.color,
                text=[f"trial {number}" for number in trace.y],
                hovertemplate=hover,
                textposition="none",
                width=0.75,
            )
            figure.add_trace(trace)
    figure.update_layout(barmode="overlay", margin={"t": 20})
    figure.update_xaxes(type="date", title="")
    return figure


def importance_bars(importances: Sequence[Importance], keys: Sequence[str], label: str) -> go.Figure:
    """Share of each parameter in the objective's variation, the largest on top."""
    figure = base_figure(
        f"What decided {label}", "importance (share)", "", legend="", height=110 + 34 * len(importances)
    )
    rows = list(reversed(importances))
    figure.add_trace(
        go.Bar(
            x=[row.share for row in rows],
            y=[plain(short_name(row.parameter, keys)) for row in rows],
            orientation="h",
            marker={"color": MARKS[COMPLETE].color},
            width=0.62,
            showlegend=False,
            text=[f"{row.share:.2f}" for row in rows],
            textposition="outside",
            cliponaxis=False,
            customdata=[plain(row.parameter) for row in rows],
            hovertemplate="%{customdata}<br>%{x:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(range=[0, 1.08], tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure


def effects(comparisons: Sequence[TunedComparison], title: str) -> go.Figure | None:
    """Tuned minus untuned with 95 % t intervals, a row a comparison, zero marked; filled where better is certain."""
    measured = [item for item in comparisons if item.effect.difference.count]
    if not measured:
        return None
    figure = base_figure(title, "tuned minus untuned, fresh seeds", "", legend="", height=140 + 44 * len(measured))
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"})
    several = len({item.level for item in measured}) > 1
    for item in measured:
        name = plain(f"{item.objective.label}, {item.level}" if several else item.objective.label)
        interval, color = item.effect.difference, {True: BEST, False: "#d55e00", None: _GREY}[item.better]
        figure.add_trace(
            go.Scatter(
                x=[interval.mean],
                y=[name],
                mode="markers",
                showlegend=False,
                name=name,
                marker={"symbol": "square" if item.unseen else "circle", "size": 11, "color": color},
                error_x=whisker(interval, color),
                hovertemplate=f"<b>{name}</b><br>%{{x:+.4g}}<br>{interval.low:+.4g} to {interval.high:+.4g} (95 %)<br>"
                f"seeds: {interval.count}<extra></extra>",
            )
        )
    figure.update_yaxes(type="category", range=[len({trace.y[0] for trace in figure.data}) - 0.5, -0.5])
    return figure
