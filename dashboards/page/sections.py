"""The sections of a sweep's report: which figures, in which order, with which captions.

A figure is left out if no cell logged its metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dashboards.page.figures import band_note, curve
from dashboards.page.figures_compare import final_by_level, forest, reward_entropy
from dashboards.page.figures_ledger import (
    cumulated,
    estimator_ranking,
    learning_and_noise,
    measured_against_predicted,
    quadrant_curves,
)
from dashboards.page.page import Section
from dashboards.page.palette import Style
from dashboards.page.sections_behaviour import (
    calibration_section,
    curves_section,
    diversity_section,
    panels_of,
    reward_section,
    without_gap,
)
from dashboards.statistics.format import interval_text, number
from dashboards.statistics.intervals import PairedEffect
from dashboards.sweep.ledger import (
    QUADRANTS,
    Account,
    Prediction,
    RankedEstimator,
    accounts,
    ledger_points,
    prediction,
    ranking,
)
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import ENTROPY, label_of
from dashboards.sweep.summary import LevelLaw, metric_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerData:
    """The ledgers of a sweep, as its figures, tables and sentences need them."""

    points: pd.DataFrame
    accounts: Sequence[Account]
    fit: Prediction | None
    ranked: Sequence[RankedEstimator]


def ledger_data(sweep: SweepData) -> LedgerData:
    """The ledgers of the completed runs."""
    points = ledger_points(sweep)
    return LedgerData(points=points, accounts=accounts(sweep), fit=prediction(points), ranked=ranking(points))


def report_sections(
    sweep: SweepData,
    styles: Sequence[Style],
    effects: Sequence[tuple[str, PairedEffect]],
    laws: Sequence[LevelLaw],
    points: pd.DataFrame,
    ledger: LedgerData,
) -> list[Section]:
    """Every section that has at least one figure, in reading order."""
    sections = [
        _main(sweep, styles, effects),
        _ledger(sweep, styles, ledger),
        _signs(sweep, styles, ledger),
        _estimators(sweep, styles, ledger),
        reward_section(sweep, styles),
        diversity_section(sweep, styles),
        calibration_section(sweep, styles, points),
        _law(sweep, styles, laws),
        curves_section(sweep, styles, "updates", "Clipping and step size", _UPDATES, _UPDATES_INTRO),
        curves_section(sweep, styles, "accounting", "Change at a token's own position", _ACCOUNTING, _ACCOUNTING_INTRO),
        curves_section(sweep, styles, "health", "Health of the runs", _HEALTH),
    ]
    return [without_gap(section) for section in sections if section.panels]


_ONE_SEED = "One seed: points without an interval, a description and no evidence."
_FINAL_NOTE = "Open marks are seeds, joined by thin lines; filled marks are means with 95 % t intervals over seeds."
_FOREST_NOTE = (
    "Same-seed differences with 95 % t intervals: what the seeds share cancels, so these intervals are the ones to "
    "judge by. From three seeds on an interval that leaves zero out is evidence of a difference."
)
_UPDATES = ("policy/clip_frac_high", "policy/clip_frac_low", "policy/kl_old", "policy/grad_norm")
_UPDATES_INTRO = "How hard the surrogate pushed: tokens held back by either threshold and the distance moved per step."
_ACCOUNTING = (
    "entropy/delta_measured",
    "entropy/corr_pearson_exact",
    "entropy/corr_pearson_covariance",
    "entropy/corr_pearson_steer_published",
)
_ACCOUNTING_INTRO = (
    "Each estimator's value for a token against the change of entropy at that token's own position, on the same "
    "contexts before and after the step's updates. Parameters are shared, so the change at a position is what all "
    "tokens of the batch and the momentum did to it: low correlations are expected here, and they do not rank the "
    "estimators. The comparison with the influence of tokens does."
)
_LEDGER_INTRO = (
    "What the updates did to the entropy, cumulated over training. Bands are causes, stacked away from zero and "
    "averaged over seeds: the policy term by quadrant (positive: the loss raised the token's log-prob; likely: "
    "above the average of its distribution), then what is not policy term. The residual is measured minus "
    "predicted: second order, the only part that noise alone can cause. Together the bands are the change of "
    "entropy between rollouts (black line)."
)
_SIGNS_INTRO = (
    "Entropy of the tokens of correct and incorrect responses, by the sign of their advantage, then what each quadrant "
    "of the policy term did to the entropy: cumulated by the ledger, or, without one, the change at the tokens' own "
    "positions at each step."
)
_HALVES_NOTE = (
    "Solid: learning, what two halves of a step's prompts agree on. Dotted: noise, the rest of the policy term. Known "
    "where a ledger looked at two prompts or more."
)
_ESTIMATORS_INTRO = (
    "The influence of a token is what its own gradient did to the entropy of the policy, exact to first order. "
    "The ledger adds it up; papers estimate it."
)
_HEALTH = (
    "engine/logprob_gap_max",
    "rollout/length_mean",
    "rollout/truncated_frac",
    "rollout/zero_std_frac_all_correct",
    "rollout/zero_std_frac_all_incorrect",
    "time/step_s",
)


def primary_metric(sweep: SweepData) -> str:
    """The hypothesis' metric where it was logged, else the policy entropy."""
    chosen = sweep.factor.hypothesis.metric if sweep.factor.hypothesis else ENTROPY
    return chosen if chosen in metric_keys(sweep) else ENTROPY


def _main(sweep: SweepData, styles: Sequence[Style], effects: Sequence[tuple[str, PairedEffect]]) -> Section:
    metric = primary_metric(sweep)
    title = label_of(metric)
    single = sweep.cells["seed"].nunique() == 1
    candidates = [(curve(sweep, metric, styles, title=f"{title} during training"), band_note(sweep), True)]
    if len(styles) > 1:
        note = _ONE_SEED if single else _FINAL_NOTE
        candidates.append((final_by_level(sweep, metric, styles), note, False))
        candidates.append((forest(sweep, metric, effects, styles), _ONE_SEED if single else _FOREST_NOTE, False))
    if metric != ENTROPY:
        candidates.append((curve(sweep, ENTROPY, styles), "", False))
    return Section(id="main", title=title, panels=panels_of(candidates))


def _ledger(sweep: SweepData, styles: Sequence[Style], ledger: LedgerData) -> Section:
    bands = [(figure, "", False) for figure in cumulated(sweep, ledger.accounts, styles)]
    halves = (learning_and_noise(sweep, ledger.accounts, styles), _HALVES_NOTE, len(bands) % 2 == 0)
    return Section(
        id="ledger",
        title="What moved the entropy",
        intro=_LEDGER_INTRO,
        panels=panels_of([*bands, halves] if bands else []),
    )


def _signs(sweep: SweepData, styles: Sequence[Style], ledger: LedgerData) -> Section:
    """Entropy by the sign of the advantage, and what each quadrant did to it."""
    quadrants = quadrant_curves(sweep, ledger.accounts, styles)
    if not quadrants:
        curves = [curve(sweep, f"entropy/delta_{quadrant}", styles) for quadrant in QUADRANTS]
        quadrants = [figure for figure in curves if figure is not None]
    signs = [curve(sweep, f"policy/entropy_{sign}", styles) for sign in ("positive", "negative")]
    return Section(
        id="signs",
        title="Entropy by sign and quadrant",
        intro=_SIGNS_INTRO,
        panels=panels_of([(figure, "", False) for figure in [*signs, *quadrants]]),
    )


def _estimators(sweep: SweepData, styles: Sequence[Style], ledger: LedgerData) -> Section:
    candidates: list[tuple[go.Figure | None, str, bool]] = []
    if fit := ledger.fit:
        note = (
            f"Slope {number(fit.slope.mean)} ({interval_text(fit.slope)}), r = {number(fit.correlation.mean)} "
            f"({interval_text(fit.correlation)}): {fit.points} steps of {fit.slope.count} runs, whole runs resampled. "
            "Dotted: exact."
        )
        candidates.append((measured_against_predicted(sweep, ledger.points, fit, styles), note, False))
    note = (
        "Marks: mean over steps, then runs, with 95 % intervals of whole runs resampled. Grey: 10th to 90th percentile "
        "of the steps."
    )
    candidates.append((estimator_ranking(ledger.ranked), note, False))
    title = "Prediction and estimators of influence"
    return Section(id="estimators", title=title, intro=_ESTIMATORS_INTRO, panels=panels_of(candidates))


def _law(sweep: SweepData, styles: Sequence[Style], laws: Sequence[LevelLaw]) -> Section:
    intro = (
        "The law R = \u2212a e\u1d34 + b says that reward is bought with entropy; R is the mean reward of everything "
        "sampled in a step. A level whose points leave the common curve upwards earns more from the same entropy."
    )
    note = "Marks are steps (mean over seeds), lines the mean of the fits to the level's runs."
    return Section(
        id="law",
        title="Reward against entropy",
        intro=intro,
        panels=panels_of([(reward_entropy(sweep, laws, styles), note, True)]),
    )
