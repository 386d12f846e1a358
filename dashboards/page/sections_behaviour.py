"""Sections on what the policy does: reward, diversity and calibration, of the rollouts and of each evaluation suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from dashboards.page.figures import curve
from dashboards.page.figures_compare import final_by_level, pass_at_k, reliability
from dashboards.page.page import Panel, Section
from dashboards.page.palette import Style
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import REWARD, evaluation_keys
from dashboards.sweep.summary import metric_keys

_DIVERSITY = ("distinct_4", "self_bleu", "distinct_correct", "answer_entropy")
_CALIBRATION = ("ece", "brier", "auroc", "ece_stated", "brier_stated", "auroc_stated")
_RELIABILITY_NOTE = (
    "On the dotted diagonal confidence equals accuracy; below it the model is over-confident. Seeds are pooled."
)
_SUITES_INTRO = "First of the rollouts, then of each evaluation suite."


def reward_section(sweep: SweepData, styles: Sequence[Style]) -> Section:
    """Reward, accuracy and pass@k."""
    candidates: list[tuple[go.Figure | None, str, bool]] = [(curve(sweep, REWARD, styles), "", False)]
    evaluations = evaluation_keys(metric_keys(sweep))
    for suite in suites(sweep):
        for kind in ("avg", "pass"):
            widest = [item.key for item in evaluations if item.suite == suite and item.kind == kind][-1:]
            candidates += [(curve_or_final(sweep, key, styles), "", False) for key in widest]
        candidates.append((pass_at_k(sweep, suite, styles), "", False))
    title = "Reward and problem solving" if evaluations else "Reward"
    return Section(id="reward", title=title, panels=panels_of(candidates))


def diversity_section(sweep: SweepData, styles: Sequence[Style]) -> Section:
    """Diversity of the responses, and what is kept and found of the base model's support."""
    support = sorted(key for key in metric_keys(sweep) if key.startswith("support/") and key.endswith(("_srr", "_ndr")))
    keys = [*_of_suites(sweep, "diversity", _DIVERSITY), "entropy/mutual_information", *support]
    return curves_section(sweep, styles, "diversity", "Diversity of responses", keys, _SUITES_INTRO)


def calibration_section(sweep: SweepData, styles: Sequence[Style], points: pd.DataFrame) -> Section:
    """Calibration error, Brier score, AUROC, and the reliability diagram of each suite."""
    keys = _of_suites(sweep, "calibration", _CALIBRATION)
    candidates = [(curve_or_final(sweep, key, styles), "", False) for key in keys]
    for suite in points["suite"].dropna().unique():
        for kind in ("logprob", "stated"):
            candidates.append((reliability(sweep, points, str(suite), styles, kind), _RELIABILITY_NOTE, False))
    return Section(id="calibration", title="Calibration", intro=_SUITES_INTRO, panels=panels_of(candidates))


def curves_section(
    sweep: SweepData, styles: Sequence[Style], name: str, title: str, keys: Sequence[str], intro: str = ""
) -> Section:
    """A curve a metric, in the order of ``keys``."""
    panels = panels_of([(curve_or_final(sweep, key, styles), "", False) for key in keys])
    return Section(id=name, title=title, intro=intro, panels=panels)


def suites(sweep: SweepData) -> list[str]:
    """The evaluation suites, held-out ones first."""
    return list(dict.fromkeys(item.suite for item in evaluation_keys(metric_keys(sweep))))


def curve_or_final(sweep: SweepData, metric: str, styles: Sequence[Style]) -> go.Figure | None:
    """The curve of a metric; where it was logged once a run, its final value by level, if levels are compared."""
    figure = curve(sweep, metric, styles)
    return final_by_level(sweep, metric, styles) if figure is None and len(styles) > 1 else figure


def panels_of(candidates: Sequence[tuple[go.Figure | None, str, bool]]) -> list[Panel]:
    """Panels of the figures that exist; all but the wide ones leave their legend to the page."""
    panels = []
    for figure, caption, wide in candidates:
        if figure is not None:
            figure.update_layout(showlegend=wide)
            panels.append(Panel(figure=figure, caption=caption, wide=wide))
    return panels


def without_gap(section: Section) -> Section:
    """``section`` with the first narrow figure widened if their number is odd, so that no column stays empty."""
    narrow = [panel for panel in section.panels if not panel.wide]
    if len(narrow) % 2 == 0:
        return section
    narrow[0].figure.update_layout(showlegend=True)
    return replace(section, panels=[replace(panel, wide=panel.wide or panel is narrow[0]) for panel in section.panels])


def _of_suites(sweep: SweepData, group: str, names: Sequence[str]) -> list[str]:
    """``group/name`` of the rollouts, then ``eval/suite/name`` of each suite."""
    return [f"{prefix}/{name}" for prefix in [group, *(f"eval/{suite}" for suite in suites(sweep))] for name in names]
