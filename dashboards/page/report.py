"""The report of one sweep: gathers statistics and figures for the HTML page, and uploads it to MLflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pandas as pd

from dashboards.page.figures_ledger import COLORS, parts_shown
from dashboards.page.legend import legend_mark
from dashboards.page.packing import compact_json
from dashboards.page.page import Section, render, write_atomically
from dashboards.page.palette import level_styles
from dashboards.page.samples import sample_rows
from dashboards.page.sections import ledger_data, primary_metric, report_sections
from dashboards.page.tokens import viewer_responses
from dashboards.page.why import why
from dashboards.statistics.format import number
from dashboards.statistics.intervals import PairedEffect, holm
from dashboards.sweep.artifacts import load_provenance, load_reliability, load_samples, load_tokens
from dashboards.sweep.glossary import Metric
from dashboards.sweep.hypothesis import RULE
from dashboards.sweep.ledger import PARTS, all_causes
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


def write_report(sweep: SweepData, path: Path) -> Path:
    """Write the sweep's page to ``path`` (atomically; creates parent folders) and return it."""
    return write_atomically(report_html(sweep), path)


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


def report_html(sweep: SweepData) -> str:
    """The page as text."""
    styles, result = level_styles(sweep), hypothesis_result(sweep)
    metric = primary_metric(sweep)
    effects, laws, tests = paired_effects(sweep, metric), level_laws(sweep), metric_tests(sweep)
    points, samples = load_reliability(sweep), sample_rows(sweep, load_samples(sweep))
    ledger, ends = ledger_data(sweep), compared_ends(sweep, result.ends)
    sections = report_sections(sweep, styles, effects, laws, points, ledger)
    responses = viewer_responses(load_tokens(sweep))
    shown_parts = parts_shown(ledger.accounts)
    columns = [sweep.describe(key) for key in headline_keys(metric_keys(sweep))]
    context = {
        "title": f"{sweep.factor.label} \u00b7 {sweep.name}",
        "headline": _headline(sweep),
        "sweep": sweep,
        "hypothesis": sweep.factor.hypothesis,
        "result": result,
        "reason": _unbroken(f"{result.reason[:1].upper()}{result.reason[1:]}."),
        "why": why(sweep, ledger.accounts, ends),
        "ends": ends_words(sweep, ends) if ends else None,
        "moved": moved_metrics(sweep, ends),
        "parts": {part: PARTS[part] for part in shown_parts},
        "part_colors": COLORS,
        "causes": all_causes(sweep, ledger.accounts),
        "ranked": ledger.ranked,
        "responses": responses,
        "responses_json": compact_json(responses),
        "date": datetime.fromtimestamp(sweep.parent.start_time, UTC).strftime("%d %B %Y, %H:%M UTC"),
        "facts": _facts(sweep),
        "unfinished": _unfinished(sweep),
        "one_seed": sweep.cells["seed"].nunique() == 1,
        "styles": styles,
        "marks": {style.level: legend_mark(style) for style in styles},
        "columns": columns,
        "rows": level_rows(sweep),
        "sections": sections,
        "primary": sweep.describe(metric),
        "effects": _with_holm(effects),
        "reference_label": labels(sweep)[sweep.reference],
        "laws": laws,
        "tests": tests,
        "names": {test.metric: sweep.describe(test.metric) for test in tests},
        "ordered": sweep.factor.ordered,
        "untested": any(math.isnan(test.p_value) for test in tests),
        "samples": samples,
        "contents": _contents(sections, tests=bool(tests), samples=bool(samples), responses=bool(responses)),
        "rule": RULE,
        "provenance": _provenance(sweep),
        "report_command": f"python -m dashboards report {quote(sweep.name)} --uri {quote(shown_uri(sweep.uri))}",
        "cells": sweep.cells.to_dict("records"),
        "glossary": _glossary(sweep, columns, tests, sections),
        "shown_uri": shown_uri(sweep.uri),
    }
    return render("report.html.j2", context, with_figures=True, more_scripts=["tokens.js"] if responses else [])


def shown_uri(uri: str) -> str:
    """The tracking URI without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _contents(sections: Sequence[Section], *, tests: bool, samples: bool, responses: bool) -> list[tuple[str, str]]:
    """(id, heading) of everything below the first screen that this page has."""
    after = [
        (tests, "tests", "What else moved"),
        (samples, "samples", "Sampled responses"),
        (responses, "tokens", "Responses, token by token"),
        (True, "method", "How to read the numbers"),
        (True, "provenance", "Provenance and reproduction"),
    ]
    return [
        ("levels", "Levels"),
        *((section.id, section.title) for section in sections),
        *((name, heading) for shown, name, heading in after if shown),
    ]


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


def _provenance(sweep: SweepData) -> list[tuple[str, str]]:
    begun = datetime.fromtimestamp(sweep.parent.start_time, UTC).isoformat(timespec="seconds")
    facts = {"sweep begun": begun, **sweep.provenance, **load_provenance(sweep)}
    facts |= {f"held: {key}": value for key, value in sweep.factor.held.items()}
    return [*facts.items(), ("page written", datetime.now(UTC).isoformat(timespec="seconds"))]


def _glossary(
    sweep: SweepData, columns: Sequence[Metric], tests: Sequence[Any], sections: Sequence[Section]
) -> list[Metric]:
    """The metrics named anywhere on the page whose definition was logged, once each."""
    keys = [name.key for name in columns] + [test.metric for test in tests]
    keys += [key for section in sections for panel in section.panels for key in panel.figure.layout.meta or ()]
    return [metric for key in dict.fromkeys(keys) if (metric := sweep.describe(key)).definition]
