"""The hypotheses of all sweeps in a store with their test results, as an HTML page and as a text table.

A sweep that cannot be read is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dashboards.page.links import shown_uri
from dashboards.page.page import render
from dashboards.page.terminal import aligned
from dashboards.statistics.format import NONE, interval_text, p_text, signed
from dashboards.store.files import write_atomically
from dashboards.store.open import open_store
from dashboards.store.store import RunRecord, Store
from dashboards.sweep.glossary import Metric
from dashboards.sweep.hypothesis import RULE, HypothesisResult
from dashboards.sweep.load import SweepData, build_sweep, list_sweeps, search_folder
from dashboards.sweep.names import ENTROPY, label_of
from dashboards.sweep.summary import hypothesis_result


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyVerdict:
    """The hypothesis of one sweep and the result of its test."""

    name: str
    label: str
    statement: str
    source: str
    metric: Metric
    result: HypothesisResult
    cells: str
    """For example ``12 of 15``: completed and planned cells."""
    date: str

    @property
    def difference(self) -> str:
        """Last minus first level with its interval."""
        if self.result.effect is None:
            return NONE
        interval = self.result.effect.difference
        return f"{signed(interval.mean)} [{interval_text(interval, sign=True)}]"

    @property
    def p_value(self) -> str:
        """The p-value of the test in use: Page's trend test or the paired t test."""
        if self.result.effect is None:
            return NONE
        return p_text(self.result.trend.p_value if self.result.trend else self.result.effect.p_value)


def load_verdicts(uri: str) -> list[StudyVerdict]:
    """The verdict on the newest sweep of every study, by name. Raises ValueError when the store holds none."""
    store = open_store(uri)
    newest: dict[str, RunRecord] = {}
    for parent in list_sweeps(store):
        newest.setdefault(parent.tags.get("study") or parent.name, parent)
    newest = {name: parent for name, parent in newest.items() if search_folder(store, parent) is None}
    if not newest:
        raise ValueError(
            f"the MLflow store {uri} holds no sweep yet: run one, for example python sweep.py -m factor=clip_high"
        )
    return [_verdict_or_reason(store, uri, name, newest[name]) for name in sorted(newest)]


def _verdict_or_reason(store: Store, uri: str, name: str, parent: RunRecord) -> StudyVerdict:
    try:
        return verdict_of(build_sweep(store, uri, parent))
    except ValueError as error:
        # One unreadable sweep (it may have stopped before it queued anything) must not hide all others.
        return StudyVerdict(
            name=name,
            label=name,
            statement="",
            source="",
            metric=Metric(key=ENTROPY, label=label_of(ENTROPY)),
            cells="unreadable",
            result=HypothesisResult(outcome="unreadable", reason=str(error)),
            date=_day(parent),
        )


def verdict_of(sweep: SweepData) -> StudyVerdict:
    """The hypothesis of a sweep with the result of its test."""
    hypothesis = sweep.factor.hypothesis
    return StudyVerdict(
        name=sweep.name,
        label=sweep.factor.label,
        statement=hypothesis.statement if hypothesis else "",
        source=hypothesis.source if hypothesis else "",
        metric=sweep.describe(hypothesis.metric if hypothesis else ENTROPY),
        result=hypothesis_result(sweep),
        cells=f"{len(sweep.completed)} of {len(sweep.cells)}",
        date=_day(sweep.parent),
    )


def verdicts_text(verdicts: Sequence[StudyVerdict]) -> str:
    """The verdicts as an aligned text table."""
    header = ["study", "verdict", "metric", "last - first level [95 %]", "evidence", "cells"]
    rows = [
        [claim.name, claim.result.badge.lower(), claim.metric.key, claim.difference, claim.p_value, claim.cells]
        for claim in verdicts
    ]
    return "\n".join(aligned([header, *rows], rule_after=1))


def write_verdicts(verdicts: Sequence[StudyVerdict], uri: str, path: Path) -> Path:
    """Write the page of all verdicts to ``path`` and return it."""
    outcomes = [claim.result.outcome for claim in verdicts]
    counts = [(outcome, outcomes.count(outcome)) for outcome in dict.fromkeys(outcomes)]
    context = {
        "title": "Verdicts",
        "verdicts": verdicts,
        "counts": counts,
        "rule": RULE,
        "shown_uri": shown_uri(uri),
        "date": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    }
    return write_atomically(render("verdicts.html.j2", context, with_figures=False), path)


def _day(parent: RunRecord) -> str:
    return datetime.fromtimestamp(parent.start_time, UTC).strftime("%Y-%m-%d")
