"""An interruption and a run from a copied configuration: the same bytes, whatever fills the slots that remember."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contract_checks import composed
from runs import MOVING, SMALL, record, run_config, write_run
from whole_runs import killed_after

from tests.end_to_end.conftest import ENVIRONMENT
from trainer.contract import run_yaml
from trainer.contract.identity import signature
from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder

SLOTS = ("controller", "rollout", "shaping", "advantage", "weight", "regularizer")
"""Slots whose members may keep something from one step to the next."""

CHOICES = [(slot, path.stem) for slot in SLOTS for path in sorted((ROOT / "conf" / slot).glob("*.yaml"))]

FEW = {"steps": 3, "checkpoint.keep": 3, "evaluation.every": 0, "accounting.every": 0, "accounting.ledger_every": 0}
"""No more than what the slots do: that evaluations and the ledger go on is shown by test_trainer_kill.py."""


def chosen(slot: str, choice: str) -> dict[str, Any]:
    """A small run with this choice, composed as a sweep composes it, and updates that are off-policy."""
    config = run_config(MOVING | FEW | {"optim.updates_per_rollout": 2, "optim.lr": 3e-4})
    with_choice = composed(slot, choice)
    for name in (*SLOTS, "surrogate", "reduction"):
        config[name] = with_choice[name]
    config["rollout"] |= {key.partition(".")[2]: value for key, value in SMALL.items() if key.startswith("rollout.")}
    # Groups in which the shipped model is right at times, and larger than the k of pass@k advantages.
    config["rollout"] |= {"prompts_per_step": 2, "group_size": 8}
    return config | {"signature": signature(config)}


def folder_of(path: Path, config: dict[str, Any]) -> RunFolder:
    path.mkdir()
    (path / "run.yaml").write_text(run_yaml.dumps(config))
    return RunFolder(path)


@pytest.mark.slow
@pytest.mark.parametrize(("slot", "choice"), CHOICES, ids=["=".join(choice) for choice in CHOICES])
def test_an_interrupted_run_resumes_bit_for_bit(slot: str, choice: str, trainer, tmp_path: Path) -> None:
    quiet = folder_of(tmp_path / "quiet", chosen(slot, choice))
    assert trainer(quiet) == 0, trainer.log.read_text()
    resumed = killed_after(2, quiet, tmp_path / "resumed")
    assert trainer(resumed) == 0, trainer.log.read_text()
    assert "step    0/3" not in trainer.log.read_text()
    assert record(resumed) == record(quiet)


@pytest.mark.slow
def test_any_run_is_run_again_from_its_folder_alone(undisturbed: RunFolder, tmp_path: Path) -> None:
    """A copy of ``run.yaml`` in a new place, the command of the README, another working directory."""
    place = tmp_path / "it's a copy ü"
    place.mkdir()
    shutil.copy(undisturbed.config_file, place)
    command = [sys.executable, "-m", "trainer", str(place)]
    subprocess.run(command, cwd=tmp_path, env=os.environ | ENVIRONMENT, check=True, capture_output=True)
    assert record(RunFolder(place)) == record(undisturbed)
    facts = json.loads((place / "provenance.json").read_text())
    assert facts["seeds"]["seed"] == 0 and facts["packages"]["torch"] and facts["hardware"]["cores"] >= 1
    assert facts["command"].endswith(f"-m trainer '{place}'".replace("'s", "'\"'\"'s")) and facts["earlier"] == []
    assert (facts["git"] is None) == (not (ROOT / ".git").exists())


def test_what_follows_a_step_is_timed_with_the_next(trainer, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"checkpoint.every": 2})
    assert trainer(folder) == 0
    lines = [json.loads(line)["metrics"] for line in folder.timings.read_text().splitlines()]
    assert ["time/checkpoint_s" in line for line in lines] == [False, False, True, False, True]
    assert all(line["time/record_s"] > 0 for line in lines)
    assert all(line["time/mirror_s"] >= 0 for line in lines if "time/checkpoint_s" in line)
