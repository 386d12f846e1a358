"""Every member says where it comes from, once, and everything that is shown is made from that."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import yaml
from runs import run_config

from sweeps.cli.command import main
from sweeps.cli.help import found_text, help_text
from sweeps.compose.compose import CONF
from trainer.contract.about import SLOTS, STATUSES, About, about, furthest, members
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError
from trainer.objective.base import Component
from trainer.tracking.mlflow_tags import tags

CHOICES = [(slot, path.stem) for slot in SLOTS for path in sorted((CONF / slot).glob("*.yaml"))]


def node_of(slot: str, choice: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((CONF / slot / f"{choice}.yaml").read_text())
    return node


def class_of(node: dict[str, Any]) -> type[Component]:
    module, _, name = node["_target_"].rpartition(".")
    found: type[Component] = getattr(importlib.import_module(module), name)
    return found


@pytest.mark.parametrize(("slot", "choice"), CHOICES)
def test_every_member_states_its_source_status_and_departures(slot: str, choice: str) -> None:
    node = node_of(slot, choice)
    cls = class_of(node)
    stated = cls.__dict__.get("about")
    assert isinstance(stated, About), "each class its own: a base class cannot speak for it"
    assert stated.status in STATUSES and stated.source.strip() and stated.departures.strip()
    assert not stated.source.endswith(".") and not stated.departures.endswith("."), "a sentence is made around it"
    assert set(stated.released) <= set(cls.__dataclass_fields__)
    read = about({"_target_": node["_target_"]})
    assert (read["source"], read["departures"]) == (stated.source, stated.departures), "read from the source as it is"


@pytest.mark.parametrize(("slot", "choice"), CHOICES)
def test_no_docstring_says_it_a_second_time(slot: str, choice: str) -> None:
    text = class_of(node_of(slot, choice)).__doc__ or ""
    assert not re.search(r"\b(Status|Source|Departures):", text)


@pytest.mark.parametrize(
    ("target", "settings", "status"),
    [
        ("trainer.objective.advantages.qae.QAE", {}, "published"),
        ("trainer.objective.advantages.qae.QAE", {"rule": "linear"}, "released"),
        ("trainer.objective.regularizers.lp_reg.LpReg", {"variant": "released"}, "released"),
        ("trainer.objective.weights.forking.Forking", {"renormalise": False}, "released"),
        ("trainer.objective.weights.rand_pos_clip.RandPosClip", {}, "reconstructed"),
    ],
)
def test_a_setting_can_turn_a_member_into_the_released_one(target: str, settings: dict[str, Any], status: str) -> None:
    assert about({"_target_": target} | settings)["status"] == status


def test_a_class_that_states_nothing_is_named() -> None:
    with pytest.raises(ConfigError, match="EvaluationConfig does not say where it comes from"):
        about({"_target_": "trainer.evaluation.evaluate.EvaluationConfig"})


def test_the_furthest_status_counts() -> None:
    assert furthest(["published", "reconstructed", "released"]) == "reconstructed" and furthest([]) == "published"


def test_tags_name_status_sources_and_departures() -> None:
    target = "trainer.objective.weights.rand_pos_clip.RandPosClip"
    config = run_config({"weight.rand_pos_clip._target_": target})
    assert "weight.rand_pos_clip" in members(config)
    found = tags(config)
    assert found["method.status"] == "reconstructed"
    assert "weight.rand_pos_clip: " in found["method.sources"] and "2511.05993" in found["method.sources"]
    assert "the fraction is assumed" in found["method.departures"]
    assert tags(run_config())["method.status"] == "published"


def test_help_finds_presets_by_arxiv_number_or_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = found_text(["2602.03392"])
    assert text.startswith("method=clip_b\n    Clip_B (arXiv 2602.03392)")
    assert [line for line in text.splitlines() if line[0] != " "] == [
        "method=clip_b",
        "method=clip_v",
        "method=small/clip_v",
    ]
    assert "method=bapo" in found_text(["BAPO", "clipping"]) and "method=dcpo" not in found_text(["BAPO"])
    assert found_text(["9999.99999"]).startswith("no preset speaks of 9999.99999: ")
    monkeypatch.setattr("sys.argv", ["sweep.py", "--help", "2510.18927"])
    assert main() == 0 and capsys.readouterr().out.startswith("method=bapo\n")
    monkeypatch.setattr("sys.argv", ["sweep.py", "-m", "factor=method", "--help"])
    assert main() == 0 and capsys.readouterr().out.startswith("Train a language model")


def test_help_and_docs_mark_what_is_no_paper() -> None:
    text = help_text()
    assert "rand_pos_clip*" in text and "cure+" in text and "clip_cov+" not in text
    page = (ROOT / "docs" / "methods.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `kl_cov` |"))
    member = page[page.index("### surrogate: kl_cov") :].split("###")[0:2]
    assert "| released |" in row and "*Status*: released" in "".join(member), "preset and member agree"
