"""The preset of a search composes to what its overrides compose to, says where it comes from, and overwrites nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from sweeps.compose.compose import CONF, compose, enable_plugins
from sweeps.grid.cells import resolve
from sweeps.search.preset import preset_trials, write_preset
from trainer.contract.identity import identity

OBJECTIVE = {"metric": "eval/heldout/avg_at_16", "direction": "maximize", "label": "avg@16"}


@pytest.fixture(scope="module")
def conf_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(CONF, tmp_path_factory.mktemp("preset") / "conf")


@pytest.fixture
def conf(conf_template: Path) -> Path:
    shutil.rmtree(conf_template / "method" / "tuned", ignore_errors=True)
    return conf_template


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sweeps" / "siren"
    made.mkdir(parents=True)
    return made


def composed(conf: Path, *overrides: str) -> Any:
    """As ``sweep.py`` composes, from another folder of configurations."""
    enable_plugins()
    already = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3", job_name="sweep"):
            return hydra.compose("config", list(overrides))
    finally:
        GlobalHydra.instance().hydra = already


def search(
    *trials: tuple[Sequence[str], Sequence[float]], goals: int = 1, begun: datetime = datetime(2026, 3, 4, 10)
) -> optuna.Study:
    """A study named ``siren`` whose trials have these overrides and values."""
    study = optuna.create_study(study_name="siren", directions=["maximize"] * goals)
    study.set_user_attr("search", {"objectives": [OBJECTIVE] * goals})
    study.set_user_attr("command", "python sweep.py -m search=siren")
    study.set_user_attr("origin", {"git revision": "3f2a9c1"})
    for overrides, values in trials:
        trial = create_trial(
            params={"regularizer.siren.top_p": 0.3, "method": "small/siren"},
            distributions={"regularizer.siren.top_p": FloatDistribution(0.1, 0.5),
                           "method": CategoricalDistribution(["grpo", "small/siren"])},
            values=list(values), user_attrs={"overrides": list(overrides), "values": {"0": [0.1], "1": [0.2]}},
        )  # fmt: skip
        trial.datetime_start = begun
        study.add_trial(trial)
    return study


@pytest.mark.parametrize(
    "overrides",
    [
        ["regularizer=[entropy_bonus]", "regularizer.entropy_bonus.coef=1e-05"],
        ["method=small/siren", "regularizer.siren.top_p=0.3"],
        ["method=small/skywork", "controller.skywork.target=0.25", "optim.lr=0.001", "surrogate.clip_high=0.31"],
        ["method=small/siren", "regularizer=[siren,entropy_bonus]", "regularizer.entropy_bonus.coef=0.002"],
        ["clip_regime=free", "optim.updates_per_rollout=2", "surrogate.clip_low=null"],
        ["weight=[sign]", "weight.sign={positive:0.5,negative:1}", "advantage=rloo", "reduction=constant",
         "reduction.length=${rollout.max_tokens}"],
        ["method=grpo", "surrogate=unclipped", "rollout.temperature=0.8", "+rollout.top_p=0.9"],
    ],
    ids=["bonus", "nested preset", "constants", "group over preset", "regime", "mapping and interpolation", "plus"],
)  # fmt: skip
def test_a_preset_composes_to_what_its_overrides_compose_to(
    overrides: list[str], conf: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_preset(search((overrides, [0.4])), folder, conf)
    tuned = composed(conf, "method=tuned/siren")
    assert tuned.method == "tuned/siren"
    expected = compose(overrides)
    assert identity(resolve(tuned)) == identity(resolve(expected))
    assert identity(resolve(tuned)) != identity(resolve(compose([])))
    assert OmegaConf.to_container(tuned.surrogate) == OmegaConf.to_container(expected.surrogate)


def test_it_can_be_changed_further_on_the_command_line(conf: Path, folder: Path) -> None:
    write_preset(search((["method=small/siren", "regularizer.siren.top_p=0.3"], [0.4])), folder, conf)
    changed = composed(conf, "method=tuned/siren", "regularizer.siren.top_p=0.4")
    assert changed.regularizer.siren.top_p == 0.4 and changed.regularizer.siren.coef == 0.5


def test_what_is_trained_on_and_for_how_long_is_said_but_not_set(conf: Path, folder: Path) -> None:
    overrides = ["method=small/siren", "steps=7", "seed=3", "evaluation.every=5", "regularizer.siren.top_p=0.3"]
    _, path = write_preset(search((overrides, [0.4])), folder, conf)
    tuned = composed(conf, "method=tuned/siren")
    assert (tuned.steps, tuned.seed) == (40, 0) and tuned.regularizer.siren.top_p == 0.3
    assert "# Searched with steps=7 seed=3 evaluation.every=5, which is no part of this preset.\n" in path.read_text()


def test_the_head_says_where_it_comes_from(folder: Path, conf: Path) -> None:
    study = search((["method=grpo"], [0.1]), (["method=small/siren"], [0.4321]))
    lines = write_preset(study, folder, None)[0].read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1] == "# Found by the search siren: trial 1 of 2."
    assert lines[2] == "# It reported avg@16 0.4321 (mean over seeds 0, 1)."
    assert lines[3].startswith("# Not confirmed on fresh seeds")
    assert lines[4:6] == ["# Command: python sweep.py -m search=siren", "# Git revision: 3f2a9c1"]


def test_a_confirmation_is_told_with_its_interval(folder: Path) -> None:
    study = search((["method=small/siren"], [0.5]))
    study.set_user_attr("confirm_sweep", "siren-confirm")
    study.set_user_attr("confirm_levels", {"untuned": None, "tuned": 0})
    # The dashboards read the study from its journal, and the runs from their folders.
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    optuna.copy_study(from_study_name="siren", from_storage=study._storage,
                      to_storage=optuna.storages.JournalStorage(journal))  # fmt: skip
    finals = {"untuned": (0.30, 0.32), "tuned": (0.35, 0.39)}
    cells = [
        confirmed(folder, level, seed, value) for level, values in finals.items() for seed, value in enumerate(values)
    ]
    confirmation = folder.with_name("siren-confirm")
    confirmation.mkdir()
    (confirmation / "sweep.json").write_text(json.dumps({"study": "siren-confirm", "cells": cells}))
    # Differences 0.05 and 0.07: mean 0.06, standard error 0.01, t(1) = 12.706: 0.06 -+ 0.127.
    text = write_preset(study, folder, None)[0].read_text()
    assert (
        "# Fresh seeds (2): avg@16 +0.06 against the untuned default, 95 % interval -0.06706 to +0.1871 "
        "(0.37 against 0.31).\n" in text
    )
    assert "Not confirmed" not in text


def confirmed(folder: Path, level: str, seed: int, value: float) -> dict[str, Any]:
    signature = f"{level}-{seed}"
    run_dir = folder.parent.parent / "runs" / signature
    run_dir.mkdir(parents=True)
    (run_dir / "status.json").write_text('{"state": "COMPLETED"}')
    record = {"step": 0, "metrics": {OBJECTIVE["metric"]: value}}
    (run_dir / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return {"signature": signature, "level": level, "label": level, "seed": 100 + seed}


def test_the_same_search_replaces_its_preset_and_nobody_else_does(
    conf: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = search((["method=small/siren", "regularizer.siren.top_p=0.3"], [0.4]))
    later = search((["method=small/siren", "regularizer.siren.top_p=0.2"], [0.4]))
    other = search((["method=grpo"], [0.4]), begun=datetime(2026, 3, 5))
    kept, path = folder / "tuned.yaml", conf / "method" / "tuned" / "siren.yaml"
    assert write_preset(first, folder, conf) == [kept, path]
    assert write_preset(later, folder, conf) == [kept, path] and "top_p: 0.2" in path.read_text()
    assert capsys.readouterr().err == ""
    assert write_preset(other, folder, conf) == [kept] and "top_p: 0.2" in path.read_text()
    assert "is left alone: another search of that name made it" in capsys.readouterr().err
    path.write_text(path.read_text().replace("0.2", "0.25"))
    assert write_preset(later, folder, conf) == [kept] and "top_p: 0.25" in path.read_text()
    assert "is left alone: it was edited" in capsys.readouterr().err
    path.write_text("# @package _global_\nmethod: tuned/siren\n")
    assert write_preset(later, folder, conf) == [kept] and "top_p: 0.2" in kept.read_text()


def test_a_front_gives_a_preset_a_member(conf: Path, folder: Path) -> None:
    study = search(
        (["method=grpo"], [0.1, 0.9]), (["method=small/siren"], [0.9, 0.1]), (["method=aer"], [0.0, 0.0]), goals=2
    )
    (folder / "tuned-7.yaml").write_text("of an earlier front")
    written = write_preset(study, folder, conf)
    assert [path.name for path in written] == ["tuned-1.yaml", "siren-1.yaml", "tuned-2.yaml", "siren-2.yaml"]
    assert sorted(path.name for path in folder.iterdir()) == ["tuned-1.yaml", "tuned-2.yaml"]
    assert composed(conf, "method=tuned/siren-2").method == "tuned/siren-2"
    study.set_user_attr("confirm_levels", {"untuned": None, "tuned-1": 1})
    assert {level: trial.number for level, trial in preset_trials(study).items()} == {"tuned-1": 1}


def test_a_search_without_a_completed_trial_writes_nothing(conf: Path, folder: Path) -> None:
    assert write_preset(search(), folder, conf) == [] and list(folder.iterdir()) == []


@pytest.mark.parametrize("override", ["~weight.sign", "regularizer@here=siren"])
def test_an_override_that_no_preset_can_hold_is_one_sentence(
    override: str, conf: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_preset(search(([override], [0.4])), folder, conf) == []
    assert "no preset for trial 0: the override" in capsys.readouterr().err
    assert list(folder.iterdir()) == [] and not (conf / "method" / "tuned").exists()


def test_a_name_with_signs_that_hydra_reads_is_made_plain(conf: Path, folder: Path) -> None:
    study = optuna.create_study(study_name="siren,lr=0.1", direction="maximize")
    study.set_user_attr("search", {"objectives": [OBJECTIVE]})
    study.add_trial(create_trial(value=0.4, user_attrs={"overrides": ["optim.lr=0.1"]}))
    _, path = write_preset(study, folder, conf)
    assert path == conf / "method" / "tuned" / "siren-lr-0.1.yaml"
    assert composed(conf, "method=tuned/siren-lr-0.1").optim.lr == 0.1


def test_line_breaks_in_a_command_stay_in_their_comment(folder: Path, conf: Path) -> None:
    study = search((["method=grpo"], [0.4]))
    study.set_user_attr("command", "python sweep.py\nsteps: 1")
    write_preset(study, folder, conf)
    assert composed(conf, "method=tuned/siren").steps == 40
