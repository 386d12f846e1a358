"""The report of one study: a self-contained HTML page, and its upload to the sweep's MLflow run.

Must not compute a statistic or draw a figure itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pandas as pd

from dashboards.page.legend import legend_mark
from dashboards.page.page import Section, render, write_atomically
from dashboards.page.palette import level_styles
from dashboards.page.sections import primary_metric, report_sections
from dashboards.statistics.format import number
from dashboards.statistics.intervals import PairedEffect, holm
from dashboards.study.artifacts import load_provenance, load_reliability, load_samples
from dashboards.study.glossary import Metric
from dashboards.study.load import Study
from dashboards.study.names import headline_keys, label_of
from dashboards.study.summary import labels, level_laws, level_rows, metric_keys, metric_tests, paired_effects, verdict
from dashboards.study.verdict import RULE

_SAMPLE_CHARACTERS = 600


def write_report(study: Study, path: Path) -> Path:
    """Write the study's page to ``path`` (atomically; parent folders are made) and return it."""
    return write_atomically(report_html(study), path)


def log_report(study: Study, path: Path) -> None:
    """Attach the page to the sweep's parent run as ``report.html``."""
    attach_page(study.uri, study.parent.run_id, path)


def attach_page(uri: str, run_id: str, path: Path) -> None:
    """Attach a page to an MLflow run as ``report.html``, whatever its file is called."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    if path.name == "report.html":
        client.log_artifact(run_id, str(path))
    else:
        client.log_text(run_id, path.read_text(encoding="utf-8"), "report.html")


def report_html(study: Study) -> str:
    """The page as text."""
    styles, judged = level_styles(study), verdict(study)
    metric = primary_metric(study)
    effects, laws, tests = paired_effects(study, metric), level_laws(study), metric_tests(study)
    points, samples = load_reliability(study), load_samples(study)
    sections = report_sections(study, styles, effects, laws, points)
    columns = [study.describe(key) for key in headline_keys(metric_keys(study))]
    context = {
        "title": f"{study.factor.label} \u00b7 {study.name}",
        "headline": _headline(study),
        "study": study,
        "hypothesis": study.factor.hypothesis,
        "verdict": judged,
        "reason": _unbroken(f"{judged.reason[:1].upper()}{judged.reason[1:]}."),
        "date": datetime.fromtimestamp(study.parent.start_time, UTC).strftime("%d %B %Y, %H:%M UTC"),
        "facts": _facts(study),
        "unfinished": _unfinished(study),
        "one_seed": study.cells["seed"].nunique() == 1,
        "styles": styles,
        "marks": {style.level: legend_mark(style) for style in styles},
        "columns": columns,
        "rows": level_rows(study),
        "sections": sections,
        "primary": study.describe(metric),
        "effects": _with_holm(effects),
        "reference_label": labels(study)[study.reference],
        "laws": laws,
        "tests": tests,
        "names": {test.metric: study.describe(test.metric) for test in tests},
        "ordered": study.factor.ordered,
        "untested": any(math.isnan(test.p_value) for test in tests),
        "samples": sample_rows(study, samples),
        "rule": RULE,
        "provenance": _provenance(study),
        "report_command": f"python -m dashboards report {quote(study.name)} --uri {quote(shown_uri(study.uri))}",
        "cells": study.cells.to_dict("records"),
        "glossary": _glossary(study, columns, tests, sections),
        "shown_uri": shown_uri(study.uri),
    }
    return render("report.html.j2", context, with_figures=True)


def shown_uri(uri: str) -> str:
    """The tracking URI without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _headline(study: Study) -> str:
    hypothesis = study.factor.hypothesis
    if hypothesis is None:
        return study.factor.label if study.factor.key else study.name
    name = label_of(hypothesis.metric)
    return f"{study.factor.label} and {name if name[:2].isupper() else name[:1].lower() + name[1:]}"


def _unbroken(sentence: str) -> str:
    """A p and its value stay on one line."""
    return sentence.replace(" p < ", " p\u00a0<\u00a0").replace(" p = ", " p\u00a0=\u00a0")


def _facts(study: Study) -> list[tuple[str, str]]:
    seeds = study.cells.groupby("level")["seed"].nunique()
    fewest, most = seeds.min(), seeds.max()
    steps = study.settings.get("steps")
    facts = [
        ("cells completed", f"{len(study.completed)} of {len(study.cells)}"),
        ("levels", str(len(study.levels))),
        ("seed a level" if most == 1 else "seeds a level", str(most) if fewest == most else f"{fewest} to {most}"),
    ]
    return facts + ([("training steps", steps)] if steps else [])


def _unfinished(study: Study) -> list[dict[str, Any]]:
    cells = study.cells[study.cells["state"] != "COMPLETED"]
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


def _provenance(study: Study) -> list[tuple[str, str]]:
    begun = datetime.fromtimestamp(study.parent.start_time, UTC).isoformat(timespec="seconds")
    facts = {"sweep begun": begun, **study.provenance, **load_provenance(study)}
    facts |= {f"held: {key}": value for key, value in study.factor.held.items()}
    return [*facts.items(), ("page written", datetime.now(UTC).isoformat(timespec="seconds"))]


def _glossary(
    study: Study, columns: Sequence[Metric], tests: Sequence[Any], sections: Sequence[Section]
) -> list[Metric]:
    """The metrics named anywhere on the page whose definition was logged, once each."""
    keys = [name.key for name in columns] + [test.metric for test in tests]
    keys += [key for section in sections for panel in section.panels for key in panel.figure.layout.meta or ()]
    return [metric for key in dict.fromkeys(keys) if (metric := study.describe(key)).definition]


def sample_rows(study: Study, samples: pd.DataFrame) -> list[Mapping[str, Any]]:
    """One row a level: a correct and an incorrect response of the last sampled step, and what the first one gave to
    the same prompts (or a correct and an incorrect one). Evaluation samples, which repeat their prompts, go before
    training ones."""
    rows: list[Mapping[str, Any]] = []
    for level, label in labels(study).items():
        of_level = samples[samples["level"] == level]
        if of_level.empty:
            continue
        of_seed = of_level[of_level["seed"] == of_level["seed"].min()]
        evaluated = of_seed[of_seed["source"] == "evaluation"]
        chosen = evaluated if evaluated["step"].nunique() > 1 else of_seed
        first, last = (chosen[chosen["step"] == step] for step in (chosen["step"].min(), chosen["step"].max()))
        late = _right_and_wrong(last)
        same = first[first["prompt"].isin(late["prompt"])].drop_duplicates("prompt")
        early = same if len(same) == len(late) else _right_and_wrong(first)
        several = chosen["step"].nunique() > 1
        rows.append(
            {
                "label": label,
                "seed": of_seed["seed"].iloc[0],
                "early": _shown(early),
                "late": _shown(late) if several else [],
            }
        )
    return rows


def _right_and_wrong(rows: pd.DataFrame) -> pd.DataFrame:
    rewards = pd.to_numeric(rows["reward"], errors="coerce")
    chosen = pd.concat([rows[rewards == rewards.max()].head(1), rows[rewards < rewards.max()].head(1)])
    return chosen if len(chosen) else rows.head(1)


def _shown(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "step": row["step"],
            "reward": row["reward"],
            "prompt": _short(row["prompt"]),
            "response": _short(row["response"]),
        }
        for row in rows.to_dict("records")
    ]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:_SAMPLE_CHARACTERS]}\u2026 ({len(text)} characters)"
