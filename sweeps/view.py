"""What a sweep looks like in the MLflow UI: its runs grouped by level, its columns, charts that begin with entropy and
reward.

MLflow has no setting for the order of metrics: without a view, charts stand in alphabetical order. But an address may
name a *shared view*, which is a tag of the experiment (what its *Share* button writes). So this writes one for every
sweep. Pure; must not import mlflow. ``docs/patches.md`` says with which version that was tried.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

TAG = "mlflow.sharedViewState."
LOCAL_UI = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` serves a store on this machine unless it is told otherwise."""

SECTION = "entropy-and-reward"


def charts(evaluation: Mapping[str, Any]) -> list[str]:
    """Metrics in the order of their charts; those that no run has are not shown."""
    samples = evaluation.get("samples") or 16
    suite = [f"eval/heldout/avg_at_{samples}", f"eval/heldout/pass_at_{samples}"]
    further = ["policy/entropy_positive", "policy/entropy_negative", "diversity/distinct_4", "calibration/ece"]
    return ["policy/entropy", "rollout/reward", *suite, *further, "policy/kl_old", "policy/clip_frac_high"]


def columns(evaluation: Mapping[str, Any]) -> list[str]:
    """Columns of the table of runs, as MLflow names them."""
    tags = [f"tags.`{name}`" for name in ("level", "seed", "state")]
    return [*tags, *(f"metrics.`{metric}`" for metric in charts(evaluation)[:4])]


def view(study: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The state of MLflow's page of runs: the cells of ``study``, grouped by level."""
    section = {"uuid": SECTION, "name": "Entropy and reward", "display": True, "isReordered": True, "deleted": False}
    return {
        "searchFilter": f"tags.study = '{study}' and tags.kind = 'cell'",
        "selectedColumns": columns(evaluation),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "level"}]},
        "compareRunSections": [section | {"isGenerated": False}],
        "compareRunCharts": [_line(number, metric) for number, metric in enumerate(charts(evaluation))],
        "isAccordionReordered": True,  # else sections are sorted by name
        "hideEmptyCharts": True,
    }


def _line(number: int, metric: str) -> dict[str, Any]:
    """A chart of one metric over steps, with the values that MLflow gives a new one."""
    return {
        "type": "LINE",
        "uuid": f"{SECTION}-{number}",
        "metricSectionId": SECTION,
        "isGenerated": False,
        "deleted": False,
        "runsCountToCompare": 100,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "scaleType": "linear",
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def view_key(study: str) -> str:
    """The name of a study's view: 12 hex digits, because a tag and an address take fewer characters than a study."""
    return hashlib.sha256(study.encode()).hexdigest()[:12]


def packed(state: Mapping[str, Any]) -> str:
    """The state as the text that MLflow keeps in a tag."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def view_address(uri: str, experiment_id: str, study: str) -> str:
    """The page of a study's view, at the server or where ``mlflow ui`` serves a store on this machine."""
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={view_key(study)}&compareRunsMode=CHART"


def sweep_note(document: Mapping[str, Any], address: str) -> str:
    """The description of a sweep's parent run, in Markdown; a search has no levels, so no view."""
    factor = document.get("factor") or {}
    hypothesis: Mapping[str, Any] = factor.get("hypothesis") or {}
    paragraphs: Sequence[str] = [
        f"`{document.get('command', '')}`",
        f"**{factor.get('label')}**: {hypothesis.get('statement')} ({hypothesis.get('source')})" if hypothesis else "",
        "" if document.get("search") else f"[Curves of all cells, grouped by level]({address})",
        "Verdict, intervals and what moved the entropy: `report.html` under *Artifacts*.",
    ]
    return "\n\n".join(filter(None, paragraphs))


EXPERIMENT_NOTE = (
    "Runs of `python sweep.py`. A sweep is one parent run (tag `kind` = `sweep`) with its cells below; its description "
    "links to curves grouped by level that begin with entropy and reward; the verdict is its artifact `report.html`."
)
