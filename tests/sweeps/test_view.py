"""The view of a sweep in the MLflow UI; how it looks was tried in a browser (docs/patches.md)."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

from sweeps.tracking import NOTE, Tracker
from sweeps.view import TAG, charts, packed, sweep_note, view, view_address, view_key

EVALUATION = {"samples": 32}


def test_charts_begin_with_entropy_and_reward_and_know_the_evaluation() -> None:
    state = view("s", EVALUATION)
    shown = [chart["metricKey"] for chart in state["compareRunCharts"]]
    assert shown[:3] == ["policy/entropy", "rollout/reward", "eval/heldout/avg_at_32"] and shown == charts(EVALUATION)
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {state["compareRunSections"][0]["uuid"]}
    assert "metrics.`policy/entropy`" in state["selectedColumns"] and "tags.`level`" in state["selectedColumns"]
    assert state["searchFilter"] == "tags.study = 's' and tags.kind = 'cell'"


def test_the_tag_is_what_the_share_button_of_mlflow_writes() -> None:
    text = packed(view("s", EVALUATION))
    head, body = text.split(";")
    assert head == "deflate" and json.loads(zlib.decompress(base64.b64decode(body))) == view("s", EVALUATION)
    assert len(text) < 5000  # MLflow's limit of older servers


def test_addresses_and_notes() -> None:
    key = view_key("a, b=c")
    assert len(key) == 12 and key.isalnum() and key != view_key("a, b=d")
    assert view_address("sqlite:////x.db", "1", "s").startswith("http://127.0.0.1:5000/#/experiments/1/runs?view")
    assert view_address("http://host:5/", "1", "s").startswith("http://host:5/#/")
    factor = {"label": "Clip", "hypothesis": {"statement": "It rises.", "source": "arXiv 1"}}
    note = sweep_note({"command": "python sweep.py", "factor": factor}, "ADDRESS")
    assert "`python sweep.py`" in note and "**Clip**: It rises. (arXiv 1)" in note and "(ADDRESS)" in note
    assert "ADDRESS" not in sweep_note({"command": "c", "search": {"x": 1}}, "ADDRESS")


def test_a_sweep_writes_its_view_and_leaves_a_persons_description_alone(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e")
    tracker.describe("s", EVALUATION)
    tags = tracker._client.get_experiment(tracker._experiment).tags
    assert tags[TAG + view_key("s")].startswith("deflate;") and "sweep.py" in tags[NOTE]
    tracker._client.set_experiment_tag(tracker._experiment, NOTE, "mine")
    tracker.describe("t", EVALUATION)
    tags = tracker._client.get_experiment(tracker._experiment).tags
    assert tags[NOTE] == "mine" and {TAG + view_key("s"), TAG + view_key("t")} <= set(tags)
    run_id = tracker.open_sweep({"study": "s", "command": "python sweep.py -m", "cells": []}, {})
    assert tracker.view_address("s") in tracker._client.get_run(run_id).data.tags[NOTE]
