"""The page of a single run: the figures of a sweep's report without what compares levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dashboards.page.page import render
from dashboards.page.palette import level_styles
from dashboards.page.sections import ledger_data, report_sections
from dashboards.page.shared import page_scripts, shared_context
from dashboards.store.files import write_atomically
from dashboards.sweep.artifacts import load_reliability
from dashboards.sweep.glossary import Metric
from dashboards.sweep.load import SweepData
from dashboards.sweep.names import compared_keys
from dashboards.sweep.summary import FINAL_STEPS, level_laws, metric_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A metric at the beginning and at the end of a run."""

    metric: Metric
    first: float
    final: float
    """Mean over the last 5 logged steps; of an evaluation the last value."""


def write_run(run: SweepData, path: Path, ui: str | None = None) -> Path:
    """Write the page of a run (a sweep of one cell) to ``path`` and return it."""
    return write_atomically(run_html(run, ui), path)


def run_html(run: SweepData, ui: str | None = None) -> str:
    """The page as text; ValueError where the run has not logged anything yet."""
    if run.metrics.empty:
        raise ValueError(f"run {run.name} has not logged a step yet")
    ledger, changed = ledger_data(run), changes(run)
    sections = report_sections(run, level_styles(run), (), level_laws(run), load_reliability(run), ledger)
    context = shared_context(run, sections, ledger, [change.metric for change in changed], ui)
    cell = run.cells.iloc[0]
    context |= {
        "title": f"Run {run.name}",
        "study": run.parent.tags.get("study"),
        "message": cell["message"],
        "facts": _facts(run),
        "changes": changed,
    }
    return render("run.html.j2", context, with_figures=True, more_scripts=page_scripts(context))


def changes(run: SweepData) -> list[Change]:
    """The headline metrics and those a sweep would compare, as far as they were logged at two steps or more."""
    rows = []
    for key in compared_keys(metric_keys(run)):
        values = run.metrics[run.metrics["metric"] == key].dropna(subset=["value"])["value"]
        if len(values) > 1:
            last = values.tail(1 if key.startswith("eval/") else FINAL_STEPS)
            rows.append(Change(metric=run.describe(key), first=float(values.iloc[0]), final=float(last.mean())))
    return rows


def _facts(run: SweepData) -> list[tuple[str, str]]:
    cell, settings = run.cells.iloc[0], run.settings
    planned = settings.get("steps")
    facts = [("", str(cell["state"]).lower())]
    if planned := settings.get("steps"):
        # Steps count from 0; the evaluation after the last one is logged at their number.
        facts.append(("steps", f"{min(cell['last_step'] + 1, float(planned)):.0f} of {planned}"))
    facts += [("seed", str(cell["seed"])), ("level", run.parent.tags.get("level") or "")]
    facts += [(name, settings.get(key, "")) for name, key in (("method", "method"), ("model", "model.path"))]
    return [(name, value) for name, value in facts if value]
