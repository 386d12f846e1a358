"""Whether a run of a given configuration will log a metric: what a search optimises has to exist.

It knows when the loop measures what; it must not measure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trainer.contract.settings import nearest
from trainer.metrics.table import find, nearest_key

if TYPE_CHECKING:
    from trainer.setup.build import Run


def why_not_logged(key: str, run: Run) -> str | None:
    """Why ``key`` will not be in the ``metrics.jsonl`` of ``run``, and what to do; None if it will be."""
    if find(key) is None:
        return f"no run logs it: did you mean {nearest_key(key)!r}?"
    head, _, rest = key.partition("/")
    if head in ("time", "throughput", "memory"):
        return "it is a timing, which differs from execution to execution: choose another metric"
    if head == "controller" and rest not in run.objective.controller:
        return f"no such controller is chosen: {nearest(rest, run.objective.controller)}"
    if head == "entropy" and not run.accounting.every:
        return "entropy accounting is off: set accounting.every"
    if head == "ledger" and not (run.accounting.ledger_every or run.accounting.ledger_steps):
        return "the entropy ledger is off: set accounting.ledger_every"
    if head in ("eval", "support"):
        return _why_not_evaluated(head, rest, run)
    return None


def _why_not_evaluated(head: str, rest: str, run: Run) -> str | None:
    settings = run.evaluation
    if not settings.every:
        return "evaluation is off: set evaluation.every"
    suites = settings.suites or tuple(run.task.suites())
    suite, _, name = rest.partition("/") if head == "eval" else rest.rpartition("_")
    if suite not in suites:
        return f"the suite {suite!r} is not evaluated: {nearest(suite, suites)}"
    settings = settings.of(suite)
    if name.endswith("_se") and settings.prompts < 2:
        return "one problem has no standard error: set evaluation.prompts"
    name, error = name.removesuffix("_se"), "_se" * name.endswith("_se")
    known = {"pass": settings.ks, "maj": (*settings.ks, settings.samples)}
    if (match := re.fullmatch(r"(pass|maj)_at_(\d+)", name)) and int(match[2]) not in known[match[1]]:
        return f"evaluation.ks is {list(settings.ks)}: name one of these, or add {match[2]}"
    if (match := re.fullmatch(r"avg_at_(\d+)", name)) and int(match[1]) != settings.samples:
        return f"evaluation.samples is {settings.samples}: name avg_at_{settings.samples}{error}"
    return None
