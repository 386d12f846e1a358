"""Loads a study of claims: the claims that its ``sweep.json`` lists, and the runs that are their arms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from dashboards.claims.claim import Claim, parse_claim
from dashboards.claims.judge import CONTRADICTED, REPRODUCED, ClaimVerdict, RunTable, judge
from dashboards.page.why import why
from dashboards.store.open import open_store
from dashboards.store.store import RunRecord, Store
from dashboards.sweep.ledger import Account, accounts
from dashboards.sweep.load import SweepData, find_parent, list_sweeps, read_sweep, sweep_of
from dashboards.sweep.names import ENTROPY


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimStudy:
    """The claims of a sweep with everything that its runs logged."""

    sweep: SweepData
    claims: tuple[Claim, ...]

    @property
    def runs(self) -> RunTable:
        """(level, seed) -> frame [step, metric] of the completed runs."""
        points = self.sweep.metrics
        points = points[points["signature"].isin(self.sweep.completed["signature"])]
        return {
            (str(level), int(str(seed))): run.pivot(index="step", columns="metric", values="value")
            for (level, seed), run in points.groupby(["level", "seed"], sort=False)
        }

    def part(self, claim: Claim) -> SweepData:
        """The runs of a claim as a sweep whose labels are the names of its arms."""
        names = {level: arm for arm, level in claim.arms.items()}

        def own(table: pd.DataFrame) -> pd.DataFrame:
            rows = table[table["level"].isin(names)]
            return rows.assign(label=rows["level"].map(names))

        return replace(self.sweep, cells=own(self.sweep.cells), metrics=own(self.sweep.metrics))


def study_parent(store: Store, uri: str, name: str | None) -> RunRecord:
    """The parent run of the study of claims ``name``, or of the newest one. ValueError where there is none."""
    parents = [parent for parent in list_sweeps(store) if parent.tags.get("claims")]
    if not parents:
        raise ValueError(f"the store {uri} holds no study of claims: run python sweep.py -m study=claims")
    return find_parent(parents, name, uri) if name else parents[0]


def load_study(uri: str, name: str | None = None) -> ClaimStudy:
    """The study of claims ``name`` in a store, or its newest one."""
    store = open_store(uri)
    parent = study_parent(store, uri, name)
    document = read_sweep(store, parent)
    claims = claims_of(document)
    return ClaimStudy(sweep=sweep_of(store, uri, parent, document), claims=claims)


def claims_of(document: Mapping[str, Any]) -> tuple[Claim, ...]:
    """The claims of a ``sweep.json``, by number."""
    return tuple(sorted(map(parse_claim, document.get("claims") or ()), key=lambda claim: claim.number))


def verdicts(study: ClaimStudy) -> list[ClaimVerdict]:
    """The verdicts of a study; a contradicted claim on entropy says what the ledger says of it."""
    found = judge(study.claims, study.runs)
    if not any(verdict.outcome == CONTRADICTED for verdict in found):
        return found
    ledgers = accounts(study.sweep)
    return [replace(verdict, why=_why(study, ledgers, verdict)) for verdict in found]


def _why(study: ClaimStudy, ledgers: Sequence[Account], verdict: ClaimVerdict) -> str:
    """The ledger's sentence on the first test on entropy that was contradicted, with the claim's names of its arms."""
    claim = verdict.claim
    for result in verdict.results:
        arms, metric = result.test.arms, str(next(iter(result.test.value.values())))
        if result.outcome == CONTRADICTED and len(arms) > 1 and metric.startswith(ENTROPY):
            found = why(study.part(claim), ledgers, (claim.arms[arms[0]], claim.arms[arms[-1]]))
            return found.sentence if found else ""
    return ""


def undecided(found: Sequence[ClaimVerdict]) -> list[int]:
    """Numbers of the claims that are not decided yet."""
    return [verdict.claim.number for verdict in found if verdict.outcome not in (REPRODUCED, CONTRADICTED)]


def check(text: str) -> None:
    """Raise ValueError, one line a problem, unless ``text`` is JSON of claims that can be judged."""
    problems = []
    for item in json.loads(text):
        try:
            parse_claim(item)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
