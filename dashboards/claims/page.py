"""The page of a study of claims: the table of verdicts, and behind each row its figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import plotly.graph_objects as go

from dashboards.claims.beside import Beside
from dashboards.claims.judge import RULE, ClaimVerdict, TestResult
from dashboards.claims.sentences import result_text, test_line
from dashboards.claims.study import ClaimStudy
from dashboards.claims.text import CORRELATIONS, correlation_rows, counted
from dashboards.page.figures import base_figure, curve, plain, whisker
from dashboards.page.figures_compare import reward_entropy
from dashboards.page.figures_ledger import cumulated, estimator_ranking, measured_against_predicted
from dashboards.page.links import shown_uri
from dashboards.page.page import Panel, Section, render
from dashboards.page.palette import Style, styles_of
from dashboards.page.sections import ledger_data
from dashboards.statistics.format import NONE, number
from dashboards.statistics.intervals import t_interval
from dashboards.store.files import write_atomically
from dashboards.sweep.correlations import against_entropy
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY
from dashboards.sweep.summary import level_laws

_PAIR = "#9aa5b1"


def write_claims(study: ClaimStudy, verdicts: Sequence[ClaimVerdict], path: Path, beside: Beside | None = None) -> Path:
    """Write the page to ``path`` and return it; ``beside`` is a second study of the same claims."""
    sections = [_section(study, verdict) for verdict in verdicts]
    context = {
        "title": f"Claims: {study.sweep.name}",
        "study": study.sweep.name,
        "sections": sections,
        "rows": [_row(verdict, beside) for verdict in verdicts],
        "beside": beside.name if beside else "",
        "counted": counted(verdicts),
        "rule": RULE,
        "correlations": correlation_rows(against_entropy(study.sweep)),
        "correlations_are": CORRELATIONS,
        "command": study.sweep.command,
        "cells": f"{len(study.sweep.completed)} of {len(study.sweep.cells)}",
        "shown_uri": shown_uri(study.sweep.uri),
        "date": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    }
    return write_atomically(render("claims.html.j2", context, with_figures=True), path)


def _row(verdict: ClaimVerdict, beside: Beside | None) -> dict[str, object]:
    """What the template shows of a claim."""
    return {
        "verdict": verdict,
        "claim": verdict.claim,
        "id": _id(verdict),
        "p": NONE if verdict.p_value != verdict.p_value else number(verdict.p_value),
        "holm": NONE if verdict.holm_p != verdict.holm_p else number(verdict.holm_p),
        "tests": [*map(test_line, verdict.results), *(beside.lines(verdict) if beside else [])],
        "beside": beside.outcome(verdict) if beside else "",
    }


def _id(verdict: ClaimVerdict) -> str:
    return f"claim-{verdict.claim.number}"


def _section(study: ClaimStudy, verdict: ClaimVerdict) -> Section:
    """Curves of what the claim is about, and the numbers of each test."""
    claim = verdict.claim
    ordered = any(result.test.compare in ("trend", "peak") for result in verdict.results)
    styles = styles_of([(level, arm) for arm, level in claim.arms.items()], ordered=ordered)
    part = study.part(claim)
    panels = [Panel(figure=figure) for metric in _curves(verdict) if (figure := curve(part, metric, styles))]
    panels += [
        Panel(figure=_numbers(result, styles), caption=f"{result.outcome.capitalize()}: {result_text(result)}.")
        for result in verdict.results
        if len(result.table)
    ]
    panels += [Panel(figure=figure) for figure in _explanations(part, verdict, styles) if figure is not None]
    return Section(id=_id(verdict), title=f"{claim.number}. {claim.statement}", intro=claim.caveat, panels=panels)


def _curves(verdict: ClaimVerdict) -> list[str]:
    """Entropy, and the other metrics of the claim that are curves; at most four."""
    return list(dict.fromkeys([ENTROPY, *sorted(verdict.claim.metrics)]))[:4]


def _explanations(part: SweepData, verdict: ClaimVerdict, styles: Sequence[Style]) -> Iterator[go.Figure | None]:
    """What the report of a sweep shows of the claim's subject: reward against entropy for the law, the ranking of
    estimators, predicted against measured change, and the ledger of a claim that was contradicted."""
    kinds = {next(iter(result.test.value)) for result in verdict.results}
    if kinds & {"law_fit", "law_error"}:
        yield reward_entropy(part, level_laws(part), styles)
    if not any(metric.startswith("ledger/") for metric in verdict.claim.metrics) and not verdict.why:
        return
    ledger = ledger_data(part)
    if "lead" in kinds:
        yield estimator_ranking(ledger.ranked)
    if "slope" in kinds and ledger.fit is not None:
        yield measured_against_predicted(part, ledger.points, ledger.fit, styles)
    if verdict.why:
        yield from cumulated(part, ledger.accounts, styles)


def _numbers(result: TestResult, styles: Sequence[Style]) -> go.Figure:
    """The number of every seed by arm, a line a seed, and the mean of each arm with its 95 % t interval."""
    words, _, _ = result.test.words.partition(":")
    figure = base_figure(words, "", words, legend="", height=300)
    arms = [plain(arm) for arm in result.test.arms]
    for seed, values in result.table.iterrows():
        figure.add_trace(
            go.Scatter(
                x=arms,
                y=values.to_numpy(),
                mode="lines+markers",
                line={"color": _PAIR, "width": 1},
                marker={"size": 5, "color": _PAIR},
                showlegend=False,
                name=f"seed {seed}",
                hovertemplate=f"seed {seed}: %{{y:.4g}}<extra></extra>",
            )
        )
    by_arm = {style.label: style for style in styles}
    for arm in result.test.arms:
        interval, style = t_interval(result.table[arm]), by_arm[arm]
        figure.add_trace(
            go.Scatter(
                x=[plain(arm)],
                y=[interval.mean],
                mode="markers",
                showlegend=False,
                error_y=whisker(interval, style.color),
                marker={"symbol": style.symbol, "size": 12, "color": style.color},
                hovertemplate=f"<b>{plain(arm)}</b><br>mean %{{y:.4g}} over {interval.count} seeds<extra></extra>",
            )
        )
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=arms)
    return figure
