"""Every mistake gets one clear sentence, and nothing is queued or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.contract.paths import ROOT

LEARNER = ROOT / "tests" / "helpers" / "fake_learner.py"
QUIET = ("tracking=none", f"launcher.trainer=[{LEARNER}]")
"""The check by the trainer is left to the tests that are about it: importing torch takes seconds."""

REFUSED = [
    (["++search.space={optim.lrr:{type:float,low:0,high:1}}"], "search.space.optim.lrr", "did you mean 'optim.lr'?"),
    (["search.space={surrogate.clip_low:{low:0.5,high:0.2}}"], "bounds the wrong way round", "swap them"),
    (["++search.space={optim.lr:{type:float,low:0,high:1,log:true}}"], "optim.lr.low=0", "begins above 0"),
    (["++search.space={optim.epochs:{type:int,low:1.5,high:3}}"], "optim.epochs.low=1.5", "a whole number is needed"),
    (["++search.space={optim.lr:{type:floot,low:0,high:1}}"], "optim.lr.type='floot'", "float, int or categorical"),
    (["++search.space={optim.lr:{type:float,lo:0,high:1}}"], "optim.lr.lo=0", "did you mean 'low'?"),
    (["++search.space={optim.lr:{type:float,low:0,high:1,when:{method:[a]}}}"], "when='method'", "above this one"),
    (["++search.space={seed:{type:int,low:0,high:9}}"], "search.space.seed", "search.seeds"),
    (["++search.space={checkpoint.every:{type:int,low:8,high:9}}"], "checkpoint.every", "same experiment"),
    (["search.objectives=[]"], "search.objectives", "at least one"),
    (["search.objectives=[{metric:policy/entropy,direction:up}]"], "direction='up'", "maximize or minimize"),
    (["search.sampler=cmaes"], "search.sampler='cmaes'", "choose one of gp, nsga2, random, tpe"),
    (["search.pruner=medain"], "search.pruner='medain'", "did you mean 'median'?"),
    (
        ["search.sampler=gp", "search.objectives=[{metric:policy/entropy},{metric:rollout/reward}]"],
        "search.sampler=gp takes one objective",
        "search.sampler=tpe",
    ),
    (["search.storage=sqlite:////no/such/folder/x.db"], "search.storage='sqlite:////no/such/folder/x.db'", "cannot be"),
    (["search.n_trials=0"], "search.n_trials=0", "at least 1"),
    (["search.rungs=[1,2]"], "search.rungs=[1, 2]", "the last of them all 3"),
    (["search.confirm_seeds=[2,9]"], "search.confirm_seeds=[2, 9]", "give fresh ones"),
    (["search.confirm_suites=[heldout]"], "search.confirm_suites", "no objective names"),
    (["search.n_trails=3"], "search.n_trails", "did you mean 'search.n_trials'?"),
    (["seed=3"], "seed cannot be set", "search.seeds"),
    (["optim.lr=1e-4,1e-3"], "optim.lr names several values", "search.space"),
    (["surrogate.clip_low=0.3"], "surrogate.clip_low is what this search varies", "leave it out"),
    (["optim.updates_per_rollout=1"], "differ in clip thresholds only", "optim.updates_per_rollout=4"),
    (["factor=clip_high"], "factor and search cannot be combined", "one after the other"),
]


@pytest.mark.parametrize(("words", "what", "remedy"), REFUSED, ids=[words[-1][:50] for words, _, _ in REFUSED])
def test_one_sentence_and_nothing_written(
    sweep: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    what: str,
    remedy: str,
) -> None:
    assert sweep("-m", "search=clip", *words, base=QUIET) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and what in line and remedy in line
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "what", "remedy"),
    [
        ("policy/entropi", "no run logs it", "did you mean 'policy/entropy'?"),
        ("eval/heldout/avg_at_8", "evaluation.samples is 16", "name avg_at_16"),
        ("eval/heldout/pass_at_3", "evaluation.ks is [1, 2, 4, 8, 16]", "or add 3"),
        ("eval/held/pass_at_4", "the suite 'held' is not evaluated", "did you mean 'heldout'?"),
        ("controller/skywork", "no such controller is chosen", "nothing to set"),
        ("time/step_s", "a timing", "choose another metric"),
    ],
)
def test_an_objective_that_no_run_logs(
    sweep: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    objective: str,
    what: str,
    remedy: str,
) -> None:
    words = [f"search.objectives=[{{metric:{objective}}}]", "engine=transformers"]
    assert sweep("-m", "search=clip", *words, base=("tracking=none",)) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.strip().splitlines() if "search.objectives[0]" in line]
    assert what in line and remedy in line
    assert not (tmp_path / "outputs").exists()


def test_a_search_takes_minus_m(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("search=clip", base=QUIET) == 2
    assert "put -m before it" in capsys.readouterr().err


@pytest.mark.slow
def test_an_existing_study_with_another_space_or_base(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = (*QUIET, "study.name=s", "search.n_trials=1", "search.confirm_seeds=[]", "search.preset=false")
    assert sweep("-m", "search=clip", "steps=2", base=base) == 0
    before = sorted(path.name for path in (tmp_path / "outputs" / "runs").iterdir())
    other = "search.space={surrogate.clip_low:{low:0.1}}"
    for words, what in (
        ([other, "steps=2"], "has another space (surrogate.clip_low)"),
        (["search.seeds=[5]", "search.rungs=[1]", "steps=2"], "has another seeds"),
        (["steps=3"], "was made on another configuration"),
    ):
        capsys.readouterr()
        assert sweep("-m", "search=clip", *words, base=base) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert what in line and "study.name=NAME" in line
    assert sorted(path.name for path in (tmp_path / "outputs" / "runs").iterdir()) == before


def test_a_plan_writes_nothing(sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("-m", "search=clip", "plan=true", base=QUIET) == 0
    shown = capsys.readouterr().out
    assert "surrogate.clip_low   0.05 to 0.6" in shown and "0 of 30 trials have ended" in shown
    assert not (tmp_path / "outputs").exists()
