"""The report of one sweep: gathers statistics and figures for the HTML page, and uploads it to MLflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards.page.legend import legend_mark
from dashboards.page.page import render
from dashboards.page.palette import level_styles
from dashboards.page.sections import ledger_data, primary_metric, report_sections
from dashboards.page.shared import page_scripts, shared_context
from dashboards.page.why import why
from dashboards.statistics.format import number
from dashboards.statistics.intervals import PairedEffect, holm
from dashboards.store.files import write_atomically
from dashboards.sweep.artifacts import load_reliability
from dashboards.sweep.hypothesis import RULE
from dashboards.sweep.ledger import all_causes
from dashboards.sweep.load import SweepData
from dashboards.sweep.moved import compared_ends, ends_words, moved_metrics
from dashboards.sweep.names import headline_keys, label_of
from dashboards.sweep.summary import (
    hypothesis_result,
    labels,
    level_laws,
    level_rows,
    metric_keys,
    metric_tests,
    paired_effects,
)


def write_report(sweep: SweepData, path: Path, ui: str | None = None) -> Path:
    """Write the sweep's page to ``path`` (atomically; creates parent folders) and return it."""
    return write_atomically(report_html(sweep, ui), path)


def log_report(sweep: SweepData, path: Path) -> None:
    """Attach the page to the sweep's parent run as ``report.html``."""
    attach_page(sweep.uri, sweep.parent.run_id, path)


def attach_page(uri: str, run_id: str, path: Path) -> None:
    """Attach a page to an MLflow run as ``report.html``, whatever its file is called."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    if path.name == "report.html":
        client.log_artifact(run_id, str(path))
    else:
        client.log_text(run_id, path.read_text(encoding="utf-8"), "report.html")


def report_html(sweep: SweepData, ui: str | None = None) -> str:
    """The page as text. ``ui`` is the address of the MLflow UI, where it is not the usual one."""
    styles, result = level_styles(sweep), hypothesis_result(sweep)
    metric = primary_metric(sweep)
    effects, laws, tests = paired_effects(sweep, metric), level_laws(sweep), metric_tests(sweep)
    ledger, ends = ledger_data(sweep), compared_ends(sweep, result.ends)
    sections = report_sections(sweep, styles, effects, laws, load_reliability(sweep), ledger)
    columns = [sweep.describe(key) for key in headline_keys(metric_keys(sweep))]
    context = shared_context(sweep, sections, ledger, [*columns, *(sweep.describe(test.metric) for test in tests)], ui)
    context |= {
        "title": f"{sweep.factor.label} \u00b7 {sweep.name}",
        "headline": _headline(sweep),
        "hypothesis": sweep.factor.hypothesis,
        "result": result,
        "claimed": sweep.describe(sweep.factor.hypothesis.metric if sweep.factor.hypothesis else metric),
        "reason": _unbroken(f"{result.reason[:1].upper()}{result.reason[1:]}."),
        "why": why(sweep, ledger.accounts, ends),
        "ends": ends_words(sweep, ends) if ends else None,
        "moved": moved_metrics(sweep, ends),
        "causes": all_causes(sweep, ledger.accounts),
        "ranked": ledger.ranked,
        "facts": _facts(sweep),
        "unfinished": _unfinished(sweep),
        "one_seed": sweep.cells["seed"].nunique() == 1,
        "styles": styles,
        "marks": {style.level: legend_mark(style) for style in styles},
        "columns": columns,
        "rows": level_rows(sweep),
        "primary": sweep.describe(metric),
        "effects": _with_holm(effects),
        "reference_label": labels(sweep)[sweep.reference],
        "laws": laws,
        "tests": tests,
        "names": {test.metric: sweep.describe(test.metric) for test in tests},
        "ordered": sweep.factor.ordered,
        "untested": any(math.isnan(test.p_value) for test in tests),
        "rule": RULE,
    }
    context["contents"].insert(-2, ("method", "How to read the numbers"))
    if tests:
        context["contents"].insert(1 + len(sections), ("tests", "What else moved"))
    return render("report.html.j2", context, with_figures=True, more_scripts=page_scripts(context))


def _headline(sweep: SweepData) -> str:
    hypothesis = sweep.factor.hypothesis
    if hypothesis is None:
        return sweep.factor.label if sweep.factor.key else sweep.name
    name = label_of(hypothesis.metric)
    return f"{sweep.factor.label} and {name if name[:2].isupper() else name[:1].lower() + name[1:]}"


def _unbroken(sentence: str) -> str:
    """``sentence`` with no-break spaces in ``p = 0.01``."""
    return sentence.replace(" p < ", " p\u00a0<\u00a0").replace(" p = ", " p\u00a0=\u00a0")


def _facts(sweep: SweepData) -> list[tuple[str, str]]:
    seeds = sweep.cells.groupby("level")["seed"].nunique()
    fewest, most = seeds.min(), seeds.max()
    steps = sweep.settings.get("steps")
    facts = [
        ("cells completed", f"{len(sweep.completed)} of {len(sweep.cells)}"),
        ("levels", str(len(sweep.levels))),
        ("seed a level" if most == 1 else "seeds a level", str(most) if fewest == most else f"{fewest} to {most}"),
    ]
    return facts + ([("training steps", steps)] if steps else [])


def _unfinished(sweep: SweepData) -> list[dict[str, Any]]:
    cells = sweep.cells[sweep.cells["state"] != "COMPLETED"]
    return [
        {
            **{str(key): value for key, value in cell.items()},
            "reached": "" if pd.isna(cell["last_step"]) else f"last step {number(cell['last_step'], 0)}",
        }
        for cell in cells.to_dict("records")
    ]


def _with_holm(effects: Sequence[tuple[str, PairedEffect]]) -> list[tuple[str, PairedEffect, float]]:
    adjusted = holm([effect.p_value for _, effect in effects])
    return [(label, effect, p_value) for (label, effect), p_value in zip(effects, adjusted, strict=True)]
