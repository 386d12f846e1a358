"""What the trainer writes as ``metrics.json`` is what reports read: one definition of every metric."""

from __future__ import annotations

import re

import pytest

from dashboards.sweep import names
from dashboards.sweep.glossary import parse_glossary
from trainer.metrics.table import METRICS, DeclaredMetric, find, glossary_json

EXAMPLES = {"<suite>": "heldout", "<k>": "8", "<n>": "16", "<component>": "skywork", "<estimator>": "exact",
            "<quadrant>": "positive_likely", "<digit>": "4", "<predictor>": "surprisal"}  # fmt: skip
GLOSSARY = parse_glossary(glossary_json(), "this checkout")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_a_report_reads_the_declared_definition_unit_and_range(metric: DeclaredMetric) -> None:
    key, meaning = metric.key, metric.meaning
    for placeholder, example in EXAMPLES.items():
        key, meaning = key.replace(placeholder, example), meaning.replace(placeholder, example)
    shown = GLOSSARY.describe(key)
    assert find(key) == metric and shown.definition == meaning and "<" not in shown.definition
    assert shown.unit == ("" if metric.unit == "1" else metric.unit) and shown.better == (metric.better or "")
    ends = [None if abs(end) == float("inf") else end for end in (shown.range.low, shown.range.high)]
    assert ends == list(metric.range)


def test_labels_are_of_declared_metrics() -> None:
    assert [key for key in names._LABELS if find(key) is None] == []


def test_dashboards_define_nothing_themselves() -> None:
    # A label is a few words; a definition is a sentence.
    assert max(len(re.split(r"\s+", label)) for label in names._LABELS.values()) <= 5
