"""A second study of the same claims in a column of its own: another model, another machine, or a repetition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dashboards.claims.judge import CONTRADICTED, NO_RUNS, REPRODUCED, ClaimVerdict
from dashboards.claims.sentences import test_line
from dashboards.claims.study import ClaimStudy, verdicts
from dashboards.statistics.format import NONE

_DECIDED = {REPRODUCED, CONTRADICTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The verdicts of a second study, by the number of the claim."""

    name: str
    verdicts: Mapping[int, ClaimVerdict]

    @classmethod
    def of(cls, study: ClaimStudy) -> Beside:
        """Those of a study that has been loaded."""
        return cls(name=study.sweep.name, verdicts={verdict.claim.number: verdict for verdict in verdicts(study)})

    def outcome(self, verdict: ClaimVerdict) -> str:
        """The word for the same claim, with its seeds: ``reproduced (3)``."""
        other = self.verdicts.get(verdict.claim.number)
        if other is None or other.outcome == NO_RUNS:
            return NONE
        return f"{other.outcome} ({other.seeds})"

    def disagrees(self, verdict: ClaimVerdict) -> bool:
        """Whether one study reproduces what the other contradicts."""
        other = self.verdicts.get(verdict.claim.number)
        return other is not None and {verdict.outcome, other.outcome} == _DECIDED

    def lines(self, verdict: ClaimVerdict) -> list[str]:
        """What the second study found for the claim, and that it disagrees, if so, with the ledger's account."""
        other = self.verdicts.get(verdict.claim.number)
        if other is None or other.outcome == NO_RUNS:
            return []
        found = [f"{self.name}: {test_line(result)}" for result in other.results]
        if self.disagrees(verdict):
            found.append(f"The two studies disagree. {other.why or verdict.why}".strip())
        return found
