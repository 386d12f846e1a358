"""The verdicts on claims as a table for the terminal and as Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from dashboards.claims.beside import Beside
from dashboards.claims.judge import NO_RUNS, RULE, ClaimVerdict
from dashboards.claims.sentences import test_line
from dashboards.page.terminal import WIDTH, aligned
from dashboards.statistics.format import NONE, interval_text, number, p_text, signed
from dashboards.statistics.intervals import Interval
from dashboards.sweep.correlations import Correlation, against_entropy
from dashboards.sweep.load import SweepData

_STATEMENT = 52
CORRELATIONS = (
    "Spearman's rank correlation with the policy's entropy: over the steps of a run (mean over a seed's runs) and "
    "over the final values of a seed's runs, one a level. Means over seeds with 95 % t intervals. Across levels it is "
    "a property of the levels that these claims choose."
)


def verdicts_table(verdicts: Sequence[ClaimVerdict], beside: Beside | None = None) -> str:
    """One row a claim, and the verdict of a second study where there is one."""
    header = ["claim", "", "verdict", "seeds", "p", "Holm", *([beside.name] if beside else [])]
    statement = _STATEMENT - (22 if beside else 0)
    rows = [
        [
            str(verdict.claim.number),
            textwrap.shorten(verdict.claim.statement, statement, placeholder=" …"),
            verdict.outcome,
            str(verdict.seeds),
            *(p_text(p).removeprefix("p ").removeprefix("= ") if not math.isnan(p) else NONE for p in _ps(verdict)),
            *([beside.outcome(verdict)] if beside else []),
        ]
        for verdict in verdicts
    ]
    left = [[row[0].rjust(5) + "  " + row[1], *row[2:]] for row in [header, *rows]]
    return "\n".join([*aligned(left, rule_after=1), "", *textwrap.wrap(counted(verdicts), WIDTH)])


def _ps(verdict: ClaimVerdict) -> tuple[float, float]:
    return verdict.p_value, verdict.holm_p


def counted(verdicts: Sequence[ClaimVerdict]) -> str:
    """``9 reproduced, 3 contradicted, 18 not decided; 6 hold after Holm's correction over the table.``"""
    outcomes = [verdict.outcome for verdict in verdicts]
    words = ", ".join(f"{outcomes.count(word)} {word}" for word in dict.fromkeys(sorted(outcomes, key=_order)))
    held = sum(verdict.outcome == "reproduced" and verdict.holm_p <= 0.05 for verdict in verdicts)
    return f"{words}; {held} of the reproduced hold after Holm's correction over the table."


def _order(word: str) -> int:
    return ("reproduced", "contradicted", "not decided", NO_RUNS).index(word)


def markdown(verdicts: Sequence[ClaimVerdict], sweep: SweepData, beside: Beside | None = None) -> str:
    """The table as Markdown, with one line a test; what goes with the entropy; and the rule."""
    revision = sweep.provenance.get("git revision", "")
    made = f"Made by `{sweep.command}`" + (f" at revision `{revision}`." if revision else ".")
    runs = f"{len(sweep.completed)} of {len(sweep.cells)} runs are completed; a claim without its arms is not run."
    lines = ["# Claims of the literature", "", f"{made} {runs}", ""]
    columns = ["", "claim", "verdict", "seeds", "p", "Holm", *([beside.name] if beside else []), "tests"]
    lines += [counted(verdicts), "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for verdict in verdicts:
        claim = verdict.claim
        tests = "<br>".join([*map(test_line, verdict.results), *(beside.lines(verdict) if beside else [])])
        statement = f"{claim.statement}<br><small>{claim.source}</small>"
        notes = "".join(f"<br>{text}" for text in (verdict.why, claim.caveat) if text)
        shown = [
            f"**{verdict.outcome}**",
            str(verdict.seeds),
            *(NONE if math.isnan(p) else number(p) for p in _ps(verdict)),
            *([beside.outcome(verdict)] if beside else []),
        ]
        cells = [str(claim.number), statement, *shown, tests + notes]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## What goes with the entropy", "", CORRELATIONS, "", "| metric | within runs | across levels |"]
    lines += ["|---|---|---|", *("| " + " | ".join(row) + " |" for row in correlation_rows(against_entropy(sweep)))]
    return "\n".join([*lines, "", "## How a verdict is reached", "", RULE, ""])


def correlation_rows(correlations: Sequence[Correlation]) -> list[list[str]]:
    """Label, correlation within runs and across levels, each with its interval."""
    return [[item.metric.label, _rho(item.within), _rho(item.across)] for item in correlations]


def _rho(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return NONE
    shown = interval_text(interval, sign=True, digits=2)
    return f"{signed(interval.mean, 2)}" + (f" ({shown})" if shown != NONE else "")
