"""What the page of a sweep and that of a run have in common: responses, data, provenance, glossary, links."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from dashboards.data.download import download_document
from dashboards.page.contamination import contamination_rows
from dashboards.page.figures_ledger import COLORS, parts_shown
from dashboards.page.links import LOCAL_UI, run_link, run_links, shown_uri, ui_address
from dashboards.page.packing import compact_json
from dashboards.page.page import Section
from dashboards.page.samples import sample_rows
from dashboards.page.sections import LedgerData
from dashboards.page.tokens import viewer_responses
from dashboards.sweep.artifacts import load_contamination, load_provenance, load_samples, load_tokens
from dashboards.sweep.glossary import Metric
from dashboards.sweep.ledger import PARTS
from dashboards.sweep.load import SweepData


def shared_context(
    sweep: SweepData, sections: Sequence[Section], ledger: LedgerData, metrics: Sequence[Metric], ui: str | None
) -> dict[str, Any]:
    """The template's variables that do not depend on what the page is about. ``metrics`` are those of its tables."""
    samples, responses = sample_rows(sweep, load_samples(sweep)), viewer_responses(load_tokens(sweep))
    contamination = contamination_rows(sweep, load_contamination(sweep))
    metrics_shown = _metrics_shown(sweep, metrics, sections)
    return {
        "sweep": sweep,
        "sections": sections,
        "parts": {part: PARTS[part] for part in parts_shown(ledger.accounts)},
        "part_colors": COLORS,
        "samples": samples,
        "contamination": contamination,
        "responses": responses,
        "responses_json": compact_json(responses),
        "date": datetime.fromtimestamp(sweep.parent.start_time, UTC).strftime("%d %B %Y, %H:%M UTC"),
        "provenance": _provenance(sweep),
        "report_command": _command("report", sweep),
        "cells": sweep.cells.to_dict("records"),
        "glossary": [metric for metric in metrics_shown if metric.definition],
        "shown_uri": shown_uri(sweep.uri),
        "contents": _contents(
            sections, contamination=bool(contamination), samples=bool(samples), responses=bool(responses)
        ),
        **_data(sweep, [metric.key for metric in metrics_shown]),
        **_links(sweep, ui),
    }


def page_scripts(context: Mapping[str, Any]) -> list[str]:
    """The scripts beside those of the figures."""
    return ["data.js", "tokens.js"] if context["responses"] else ["data.js"]


def _contents(
    sections: Sequence[Section], *, contamination: bool, samples: bool, responses: bool
) -> list[tuple[str, str]]:
    """(id, heading) of everything below the first screen."""
    after = [
        (contamination, "contamination", "Evaluation problems trained on"),
        (samples, "samples", "Sampled responses"),
        (responses, "tokens", "Responses, token by token"),
        (True, "data", "Data"),
        (True, "provenance", "Provenance and reproduction"),
    ]
    return [
        ("levels", "At the end of training"),
        *((section.id, section.title) for section in sections),
        *((name, heading) for present, name, heading in after if present),
    ]


def _data(sweep: SweepData, metrics: Sequence[str]) -> dict[str, Any]:
    document = download_document(sweep, metrics)
    return {
        "data_json": compact_json(document),
        "data_every": document["every"],
        "data_name": re.sub(r"[^A-Za-z0-9._-]+", "_", sweep.name).strip("._") or "data",
        "export_command": _command("export", sweep),
    }


def _links(sweep: SweepData, ui: str | None) -> dict[str, Any]:
    address = ui_address(sweep.uri, ui)
    local = address == LOCAL_UI and "://" in sweep.uri
    command = f"mlflow ui --backend-store-uri {quote(shown_uri(sweep.uri))} --workers 1"
    is_sweep = sweep.parent.tags.get("kind") == "sweep"
    return {
        "links": run_links(sweep, address),
        "parent_link": run_link(address, sweep.parent) if is_sweep else None,
        "ui_command": command if local else None,
    }


def _command(verb: str, sweep: SweepData) -> str:
    if "://" not in sweep.uri:  # the folder of a run says where it is
        return f"python -m dashboards {verb} {quote(sweep.uri)}"
    return f"python -m dashboards {verb} {quote(sweep.name)} --uri {quote(shown_uri(sweep.uri))}"


def _provenance(sweep: SweepData) -> list[tuple[str, str]]:
    begun = datetime.fromtimestamp(sweep.parent.start_time, UTC).isoformat(timespec="seconds")
    facts = {"sweep begun": begun, **sweep.provenance, **load_provenance(sweep)}
    facts |= {f"held: {key}": value for key, value in sweep.factor.held.items()}
    return [*facts.items(), ("page written", datetime.now(UTC).isoformat(timespec="seconds"))]


def _metrics_shown(sweep: SweepData, metrics: Sequence[Metric], sections: Sequence[Section]) -> list[Metric]:
    """The metrics of tables and figures, once each."""
    keys = [metric.key for metric in metrics]
    keys += [key for section in sections for panel in section.panels for key in panel.figure.layout.meta or ()]
    return [sweep.describe(key) for key in dict.fromkeys(keys)]
