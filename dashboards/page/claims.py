"""All hypotheses and their verdicts over every study in a store, on one page and as a text table.

Must not hide a study that cannot be judged: it is listed with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dashboards.page.page import render, write_atomically
from dashboards.page.report import shown_uri
from dashboards.page.terminal import aligned
from dashboards.statistics.format import NONE, interval_text, p_text, signed
from dashboards.store.store import RunRecord, Store, open_store
from dashboards.study.glossary import Metric
from dashboards.study.load import Study, build_study, list_studies, search_folder
from dashboards.study.names import ENTROPY, label_of
from dashboards.study.summary import verdict
from dashboards.study.verdict import RULE, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One study's hypothesis, judged."""

    name: str
    label: str
    statement: str
    source: str
    metric: Metric
    verdict: Verdict
    cells: str
    """Completed of planned cells, in words."""
    date: str

    @property
    def difference(self) -> str:
        """Last minus first level with its interval."""
        if self.verdict.effect is None:
            return NONE
        interval = self.verdict.effect.difference
        return f"{signed(interval.mean)} [{interval_text(interval, sign=True)}]"

    @property
    def p_value(self) -> str:
        """The p-value that the verdict rests on."""
        if self.verdict.effect is None:
            return NONE
        return p_text(self.verdict.trend.p_value if self.verdict.trend else self.verdict.effect.p_value)


def load_claims(uri: str) -> list[Claim]:
    """The claim of the newest sweep of every study, by name. Raises ValueError when the store holds none."""
    store = open_store(uri)
    newest: dict[str, RunRecord] = {}
    for parent in list_studies(store):
        newest.setdefault(parent.tags.get("study") or parent.name, parent)
    newest = {name: parent for name, parent in newest.items() if search_folder(store, parent) is None}
    if not newest:
        raise ValueError(
            f"the MLflow store {uri} holds no sweep yet: run one, for example python sweep.py -m factor=clip_high"
        )
    return [_claim_or_reason(store, uri, name, newest[name]) for name in sorted(newest)]


def _claim_or_reason(store: Store, uri: str, name: str, parent: RunRecord) -> Claim:
    try:
        return claim_of(build_study(store, uri, parent))
    except ValueError as error:
        # A sweep that stopped before it queued anything must not hide the verdicts of all others.
        return Claim(
            name=name,
            label=name,
            statement="",
            source="",
            metric=Metric(key=ENTROPY, label=label_of(ENTROPY)),
            cells="unreadable",
            verdict=Verdict(outcome="unreadable", reason=str(error)),
            date=_day(parent),
        )


def claim_of(study: Study) -> Claim:
    """The study's hypothesis with its verdict."""
    hypothesis = study.factor.hypothesis
    return Claim(
        name=study.name,
        label=study.factor.label,
        statement=hypothesis.statement if hypothesis else "",
        source=hypothesis.source if hypothesis else "",
        metric=study.describe(hypothesis.metric if hypothesis else ENTROPY),
        verdict=verdict(study),
        cells=f"{len(study.completed)} of {len(study.cells)}",
        date=_day(study.parent),
    )


def claims_text(claims: Sequence[Claim]) -> str:
    """The claims as an aligned text table."""
    header = ["study", "verdict", "metric", "last - first level [95 %]", "evidence", "cells"]
    rows = [
        [claim.name, claim.verdict.badge.lower(), claim.metric.key, claim.difference, claim.p_value, claim.cells]
        for claim in claims
    ]
    return "\n".join(aligned([header, *rows], rule_after=1))


def write_claims(claims: Sequence[Claim], uri: str, path: Path) -> Path:
    """Write the page of all claims to ``path`` and return it."""
    outcomes = [claim.verdict.outcome for claim in claims]
    counts = [(outcome, outcomes.count(outcome)) for outcome in dict.fromkeys(outcomes)]
    context = {
        "title": "Claims and verdicts",
        "claims": claims,
        "counts": counts,
        "rule": RULE,
        "shown_uri": shown_uri(uri),
        "date": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    }
    return write_atomically(render("claims.html.j2", context, with_figures=False), path)


def _day(parent: RunRecord) -> str:
    return datetime.fromtimestamp(parent.start_time, UTC).strftime("%Y-%m-%d")
