"""Figures of the search space: slices, contour, parallel coordinates, Pareto fronts.

Parallel coordinates are drawn with line traces: plotly's own need WebGL and ``eval``, which the content security policy
forbids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from plotly.colors import sample_colorscale

from dashboards.page.figures import base_figure, plain
from dashboards.search.figures import BEST, MARKS, short_name, trial_text, value_text
from dashboards.search.load import COMPLETE, OptimizedMetric, SearchData, TrialRecord
from dashboards.search.outcome import front, single_study

MAX_LINES = 150
MAX_HORIZONTAL_LABELS = 6
"""With more categories or axes than this, their names are slanted."""
_SHADES = [[0.0, "#c6dbef"], [1.0, "#08519c"]]
_ABSENT = -0.13
"""Position of a trial on the axis of a parameter that it does not have."""


def slice_plot(search: SearchData, key: str, position: int, keys: Sequence[str]) -> go.Figure | None:
    """Objective against one parameter over the completed trials that have it; later trials darker, the best as a
    star."""
    rows = [trial for trial in search.complete if key in trial.params and trial.values]
    if not rows:
        return None
    objective, name = search.objectives[position], short_name(key, keys)
    figure = base_figure("", name, objective.label, legend="")
    best = {trial.number for trial in front(search)}
    for chosen, style in ((False, {}), (True, {"symbol": "star", "size": 14, "color": BEST})):
        some = [trial for trial in rows if (trial.number in best) == chosen]
        if not some:
            continue
        numbers = [trial.number for trial in some]
        fading = {
            "color": numbers,
            "colorscale": _SHADES,
            "cmin": 0,
            "cmax": max(1, search.trials[-1].number),
            "size": 9,
            "line": {"color": MARKS[COMPLETE].color, "width": 1},
        }
        figure.add_trace(
            go.Scatter(
                x=[_shown(trial.params[key]) for trial in some],
                y=[trial.values[position] for trial in some],
                mode="markers",
                showlegend=False,
                marker=style or fading,
                text=[trial_text(trial) for trial in some],
                hovertemplate="%{text}<br>" + plain(objective.label) + " %{y:.4g}<extra></extra>",
            )
        )
    figure.update_layout(height=300)
    all_values = [trial.values[position] for trial in search.complete if trial.values]
    figure.update_yaxes(range=_padded(min(all_values), max(all_values)))
    _scale(figure, rows[0].distributions[key])
    return figure


def _scale(figure: go.Figure, distribution: Any) -> None:
    """Let the axis span the whole range of the parameter, so that slices can be compared."""
    if isinstance(distribution, CategoricalDistribution):
        choices = [_shown(choice) for choice in distribution.choices]
        figure.update_xaxes(
            type="category", categoryorder="array", categoryarray=choices, range=[-0.6, len(choices) - 0.4]
        )
        if len(choices) > MAX_HORIZONTAL_LABELS:
            figure.update_xaxes(tickangle=-35)
            figure.update_layout(height=360)
    elif distribution.log:
        figure.update_xaxes(type="log", range=_padded(math.log10(distribution.low), math.log10(distribution.high)))
    else:
        figure.update_xaxes(range=_padded(distribution.low, distribution.high))


def _padded(low: float, high: float) -> list[float]:
    """Bounds with room for the marks at them."""
    room = 0.06 * ((high - low) or abs(high) or 1.0)
    return [low - room, high + room]


def _shown(value: Any) -> Any:
    """A number as itself, anything else as text escaped for plotly."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else plain(value_text(value))


def contour(search: SearchData, position: int, pair: Sequence[str], keys: Sequence[str]) -> go.Figure | None:
    """Optuna's own contour of the objective over two numeric parameters; None below five trials that have both."""
    rows = [trial for trial in search.complete if trial.values and all(key in trial.params for key in pair)]
    spread = all(len({trial.params[key] for trial in rows}) > 2 for key in pair)
    if len(pair) < 2 or len(rows) < 5 or not spread or len({trial.values[position] for trial in rows}) == 1:
        return None
    study, objective = single_study(search, position, {trial.number for trial in rows}), search.objectives[position]
    optuna_figure = optuna.visualization.plot_contour(study, params=list(pair), target_name=plain(objective.label))
    names = [short_name(key, keys) for key in pair]
    figure = base_figure("The two numbers that mattered most", *names, legend="")
    for trace in optuna_figure.data:
        if trace.type == "contour":
            trace.update(colorscale="Viridis", reversescale=not objective.maximize, line_width=0.5)
            trace.colorbar.update(title={"text": ""}, thickness=12)
        else:
            trace.update(marker={"color": "#ffffff", "size": 6, "line": {"color": "#1f2933", "width": 1}})
        figure.add_trace(trace)
    swapped = optuna_figure.layout.xaxis.title.text != pair[0]
    order = list(reversed(names)) if swapped else names
    figure.update_xaxes(
        title_text=plain(order[0]), type=optuna_figure.layout.xaxis.type, range=optuna_figure.layout.xaxis.range
    )
    figure.update_yaxes(
        title_text=plain(order[1]), type=optuna_figure.layout.yaxis.type, range=optuna_figure.layout.yaxis.range
    )
    return figure


def numeric(search: SearchData, keys: Sequence[str]) -> list[str]:
    """Those of ``keys`` that are numbers, in their order."""
    kinds = {key: kind for trial in search.trials for key, kind in trial.distributions.items()}
    return [key for key in keys if not isinstance(kinds[key], CategoricalDistribution)]


def pareto(search: SearchData, pair: tuple[int, int]) -> go.Figure | None:
    """Two objectives against each other: completed trials, the Pareto front of all objectives as stars."""
    rows = [trial for trial in search.complete if trial.values]
    if not rows:
        return None
    across, up = (search.objectives[position] for position in pair)
    figure = base_figure("", _axis_title(across), _axis_title(up), legend="Trials")
    best = {trial.number for trial in front(search)}
    for label, chosen, marker in (
        ("dominated", False, {"color": "#9fb3c8", "symbol": "circle", "size": 8}),
        ("Pareto front", True, {"color": BEST, "symbol": "star", "size": 13}),
    ):
        some = sorted(
            (trial for trial in rows if (trial.number in best) == chosen), key=lambda trial: trial.values[pair[0]]
        )
        if some:
            figure.add_trace(
                go.Scatter(
                    x=[trial.values[pair[0]] for trial in some],
                    y=[trial.values[pair[1]] for trial in some],
                    name=label,
                    mode="markers",
                    marker=marker,
                    text=[trial_text(trial) for trial in some],
                    hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
                )
            )
    figure.update_layout(meta=[across.metric, up.metric], margin={"t": 20})
    return figure


def _axis_title(objective: OptimizedMetric) -> str:
    return f"{objective.label}, {'more' if objective.maximize else 'less'} is better"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """One axis of the parallel coordinates."""

    name: str
    positions_on_axis: tuple[float, ...]
    """By trial, 0 to 1; ``_ABSENT`` where the trial does not have the parameter."""
    ticks: tuple[tuple[float, str], ...]


def parallel(search: SearchData, keys: Sequence[str], position: int = 0) -> go.Figure | None:
    """A line a completed trial over all parameters and the objectives, coloured by one objective, the best one last."""
    objective = search.objectives[position]
    rows = [trial for trial in search.complete if trial.values]
    rows = sorted(rows, key=lambda trial: objective.sign * trial.values[position])[-MAX_LINES:]
    if len(rows) < 2:
        return None
    used_keys = [key for key in keys if any(key in trial.params for trial in rows)]
    axes = [_parameter_axis(key, short_name(key, keys), rows) for key in used_keys]
    axes += [_value_axis(other, place, rows) for place, other in enumerate(search.objectives)]
    figure = base_figure("Every completed trial", "", "", legend="", height=430)
    values = [trial.values[position] for trial in rows]
    low, high = min(values), max(values)
    shades = sample_colorscale(
        "Viridis_r",
        [
            0.05 + 0.95 * _share(objective.sign * value, *sorted((objective.sign * low, objective.sign * high)))
            for value in values
        ],
    )
    best = {trial.number for trial in front(search)}
    for index, trial in enumerate(rows):
        strong = trial.number in best
        figure.add_trace(
            go.Scatter(
                x=list(range(len(axes))),
                y=[axis.positions_on_axis[index] for axis in axes],
                mode="lines",
                showlegend=False,
                line={"color": shades[index], "width": 3.5 if strong else 1.4},
                opacity=1.0 if strong else 0.7,
                text=[trial_text(trial)] * len(axes),
                hovertemplate=f"%{{text}}<br>{plain(objective.label)} {values[index]:.4g}<extra></extra>",
            )
        )
    _draw_axes(figure, axes)
    return figure


def _draw_axes(figure: go.Figure, axes: Sequence[_Axis]) -> None:
    """Vertical axes with their names below and their ticks beside them."""
    absent = [place for place, axis in enumerate(axes) if _ABSENT in axis.positions_on_axis]
    for place, axis in enumerate(axes):
        figure.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": "#52606d", "width": 1})
        ticks = [*axis.ticks, *([(_ABSENT, "not used")] if place in absent[:1] else [])]
        for height, text in ticks:
            figure.add_annotation(
                x=place,
                y=height,
                text=plain(text),
                showarrow=False,
                xanchor="left",
                xshift=4,
                font={"size": 11},
                bgcolor="rgba(255,255,255,0.8)",
                borderpad=1,
            )
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[plain(axis.name) for axis in axes],
        showgrid=False,
        range=[-0.15, len(axes) - 0.6],
        showline=False,
        ticks="",
    )
    if len(axes) > MAX_HORIZONTAL_LABELS:
        figure.update_xaxes(tickangle=-35)
        figure.update_layout(height=500)
    figure.update_yaxes(visible=False, range=[(_ABSENT if absent else 0) - 0.07, 1.07])


def _parameter_axis(key: str, name: str, rows: Sequence[TrialRecord]) -> _Axis:
    distribution: Any = next(trial.distributions[key] for trial in rows if key in trial.params)
    if isinstance(distribution, CategoricalDistribution):
        count = len(distribution.choices)
        places = {
            repr(choice): rank / (count - 1) if count > 1 else 0.5 for rank, choice in enumerate(distribution.choices)
        }
        ticks = tuple((places[repr(choice)], value_text(choice)) for choice in distribution.choices)
        positions_on_axis = tuple(places[repr(trial.params[key])] if key in trial.params else _ABSENT for trial in rows)
        return _Axis(name=name, positions_on_axis=positions_on_axis, ticks=ticks)
    log = bool(distribution.log)
    bounds = (float(distribution.low), float(distribution.high))
    low, high = (math.log(bounds[0]), math.log(bounds[1])) if log else bounds
    positions_on_axis = tuple(
        _share(math.log(trial.params[key]) if log else float(trial.params[key]), low, high)
        if key in trial.params
        else _ABSENT
        for trial in rows
    )
    title = f"{name} (log)" if log else name
    return _Axis(
        name=title,
        positions_on_axis=positions_on_axis,
        ticks=((0.0, value_text(bounds[0])), (1.0, value_text(bounds[1]))),
    )


def _value_axis(objective: OptimizedMetric, position: int, rows: Sequence[TrialRecord]) -> _Axis:
    values = [trial.values[position] for trial in rows]
    low, high = min(values), max(values)
    ticks = ((0.0, value_text(low)), (1.0, value_text(high)))
    return _Axis(
        name=objective.label, positions_on_axis=tuple(_share(value, low, high) for value in values), ticks=ticks
    )


def _share(value: float, low: float, high: float) -> float:
    """Where ``value`` lies between ``low`` and ``high``, 0 to 1; the middle where they are equal."""
    return (value - low) / (high - low) if high > low else 0.5
