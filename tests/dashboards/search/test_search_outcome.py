"""What a search came to, and its confirmation: numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fake_search import AVG, ENTROPY, PASS, FakeSearch, FakeTrial, front_search, write_run, write_search
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from dashboards.search.conclusion import conclude
from dashboards.search.confirm import Confirmation, load_confirmation, value_of
from dashboards.search.load import OptimizedMetric, SearchData, load_search
from dashboards.search.outcome import best_so_far, front, importances, parameters, saving, tuned_trials

PRUNED, FAIL, RUNNING = TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
OOD = "eval/ood/avg_at_16"
KEY = "controller.skywork.target"


def complete(*values: float, target: float = 0.2) -> FakeTrial:
    return FakeTrial(params={KEY: target}, values=values)


def ended(state: TrialState, **facts: object) -> FakeTrial:
    return FakeTrial(params={KEY: 0.2}, state=state, **facts)  # type: ignore[arg-type]


def loaded(output: Path, *trials: FakeTrial, **facts: object) -> SearchData:
    return load_search(write_search(output, FakeSearch(trials=trials, **facts)))  # type: ignore[arg-type]


def test_the_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    search = loaded(tmp_path, complete(0.3), ended(PRUNED, values=[0.1], reason="median", reported={5: 0.1}))
    assert [trial.state for trial in search.trials] == ["COMPLETE", "PRUNED"]
    first, pruned = search.trials
    assert first.values == (0.3,) and first.seed_values == {0: (0.3,), 1: (0.3,)}
    assert pruned.values == (0.1,) and pruned.reason == "median" and pruned.intermediate == {5: 0.1}
    assert first.overrides == ("method=small/skywork", f"{KEY}=0.2")
    assert search.objectives == (OptimizedMetric(metric=AVG, maximize=True, label="avg@16, held-out", last=2),)
    assert search.storage == str(search.folder / "study.journal") and search.n_trials == 24


def test_reading_writes_nothing(tmp_path: Path) -> None:
    folder = write_search(tmp_path, FakeSearch(trials=[complete(0.3)]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    load_confirmation(load_search(folder))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_no_search_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the folder of a search"):
        load_search(tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder = write_search(tmp_path, FakeSearch())
    renamed = folder.rename(folder.with_name("other"))
    with pytest.raises(ValueError, match=r"holds no study named 'other'"):
        load_search(renamed)
    (folder.parent / "other" / "sweep.json").write_text('{"search": {"storage": "nosuch://user:secret@host/db"}}')
    with pytest.raises(ValueError, match="cannot be read from host/db") as told:
        load_search(renamed)
    assert "secret" not in str(told.value)


def test_a_database_of_the_search_is_read_instead_of_a_journal(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="s", storage=url)
    study.add_trial(optuna.trial.create_trial(value=0.5))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"search": {"storage": url, "n_trials": 3}}))
    search = load_search(tmp_path / "s")
    assert search.complete[0].values == (0.5,) and search.storage == url and search.objectives[0].maximize is False


def test_best_so_far_counts_completed_trials_only(tmp_path: Path) -> None:
    trials = (complete(0.2), ended(PRUNED, values=[0.9]), complete(0.1), complete(0.3))
    assert best_so_far(loaded(tmp_path / "up", *trials)) == [(0, 0.2), (2, 0.2), (3, 0.3)]
    down = loaded(tmp_path / "down", *trials, objectives=((ENTROPY, "minimize"),))
    assert best_so_far(down) == [(0, 0.2), (2, 0.1), (3, 0.1)]


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    values = [(0.3, 0.2), (0.4, 0.1), (0.2, 0.2), (0.4, 0.3), (0.1, 0.05), (0.1, 0.05)]
    trials = [complete(*pair) for pair in values]
    # Much of the first, little of the second: 1 beats 0, 2, 3; 4 and 5 are equal and neither beats the other.
    search = loaded(tmp_path, *trials, objectives=((AVG, "maximize"), (ENTROPY, "minimize")))
    assert [trial.number for trial in front(search)] == [1, 4, 5]
    assert {level: trial.number for level, trial in tuned_trials(search).items()} == {
        "tuned-1": 1,
        "tuned-2": 4,
        "tuned-3": 5,
    }


def test_steps_and_time_saved_by_pruning(tmp_path: Path) -> None:
    search = loaded(
        tmp_path,
        FakeTrial(params={}, values=[0.3], steps_run=80, steps_planned=80, seconds=240.0),
        ended(PRUNED, steps_run=20, steps_planned=80, seconds=40.0),
        ended(PRUNED, steps_run=10, steps_planned=80, seconds=5.0, reused=1),
        ended(RUNNING, steps_run=10, steps_planned=80, seconds=30.0),
    )
    saved = saving(search)
    # 60 + 70 of 240 steps. The second trial's own pace is 2 s; the third's run was found, so it takes that of all with
    # one: (240 + 40) / (80 + 20) = 2.8 s. 60 x 2 + 70 x 2.8 = 316 s.
    assert (saved.pruned, saved.steps, saved.planned) == (2, 130, 240)
    assert saved.fraction == pytest.approx(130 / 240) and saved.seconds == pytest.approx(316.0)
    assert saved.busy == 315.0


def test_nothing_pruned_saves_nothing_and_no_time_is_no_number(tmp_path: Path) -> None:
    assert saving(loaded(tmp_path / "a", complete(0.3))).steps == 0
    untimed = saving(loaded(tmp_path / "b", ended(PRUNED, steps_run=10, steps_planned=40, seconds=0.0)))
    assert untimed.steps == 30 and math.isnan(untimed.seconds)


def test_the_parameter_that_decides_is_the_important_one(tmp_path: Path) -> None:
    space = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
    trials = [FakeTrial(params={"a": i / 20, "b": (7 * i % 20) / 20}, values=[i / 20]) for i in range(20)]
    found, why = importances(loaded(tmp_path, *trials, space=space))
    assert why == "" and found[0].parameter == "a" and found[0].share > 0.6
    assert sum(item.share for item in found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([], "0 completed trials: importances need at least 4."),
        ([complete(0.1)] * 3, "3 completed trials"),
        ([complete(0.1, target=0.1 + i / 50) for i in range(6)], "the same value"),
        ([complete(i / 10) for i in range(6)], "Fewer than two parameters vary"),
    ],
    ids=["none", "few", "constant", "nothing varies"],
)
def test_without_importances_there_is_a_reason(trials: list[FakeTrial], reason: str, tmp_path: Path) -> None:
    found, why = importances(loaded(tmp_path, *trials))
    assert found == [] and reason in why


def test_conditional_parameters_have_importances_too(tmp_path: Path) -> None:
    search = load_search(write_search(tmp_path, front_search()))
    found, _ = importances(search, 0)
    assert {item.parameter for item in found} == set(parameters(search)) == set(search.settings["space"])


def confirmation(output: Path, levels: dict[str, list[float]], reported: float = 0.7, **facts: object) -> Confirmation:
    search = confirmed_search(output, levels, reported, **facts)
    return load_confirmation(search)


def confirmed_search(
    output: Path, levels: dict[str, list[float]], reported: float = 0.7, **facts: object
) -> SearchData:
    confirm = {level: [{AVG: value, OOD: value / 2} for value in values] for level, values in levels.items()}
    return loaded(output, complete(0.1), complete(reported), confirm=confirm, confirmed={"tuned": 1}, **facts)


def test_the_effect_and_the_winners_curse_by_hand(tmp_path: Path) -> None:
    found = confirmation(tmp_path, {"untuned": [0.3, 0.3, 0.3], "tuned": [0.5, 0.4, 0.6]})
    main, unseen = found.comparisons
    # Differences 0.2, 0.1, 0.3: mean 0.2, sd 0.1, standard error 0.057735, t(2) = 4.302653: half-width 0.248414.
    assert main.effect.difference.mean == pytest.approx(0.2)
    assert main.effect.difference.low == pytest.approx(0.2 - 0.248414, abs=1e-5)
    # Of 27 resamples one has mean 0.1 and one 0.3, each more likely (1/27) than 2.5 %.
    assert (main.effect.bootstrap.low, main.effect.bootstrap.high) == pytest.approx((0.1, 0.3))
    # Tuned 0.5, 0.4, 0.6 has the same spread: reported 0.7 minus 0.5 -+ 0.248414.
    assert main.reported == 0.7 and main.selection_bias.mean == pytest.approx(0.2)
    assert main.selection_bias.low == pytest.approx(0.7 - main.tuned.high) == pytest.approx(-0.048414, abs=1e-5)
    assert main.selection_bias.high == pytest.approx(0.7 - main.tuned.low)
    assert main.better is None and found.main is main
    assert unseen.unseen and unseen.objective.metric == OOD and unseen.effect.difference.mean == pytest.approx(0.1)
    assert math.isnan(unseen.reported) and math.isnan(unseen.selection_bias.mean)
    assert found.seeds == (100, 101, 102) and found.missing == "" and found.used_before == ()


@pytest.mark.parametrize(("direction", "better"), [("maximize", True), ("minimize", False)])
def test_better_follows_the_direction(direction: str, better: bool, tmp_path: Path) -> None:
    levels = {"untuned": [0.30, 0.31, 0.32], "tuned": [0.40, 0.42, 0.41]}
    search = confirmed_search(tmp_path, levels, objectives=((AVG, direction),))
    found = load_confirmation(search)
    assert found.comparisons[0].better is better
    assert conclude(search, found).style == ("supported" if better else "contradicted")


def test_runs_that_have_not_completed_are_missing_and_pair_with_nothing(tmp_path: Path) -> None:
    search = confirmed_search(tmp_path, {"untuned": [0.3, 0.3, 0.3], "tuned": [0.5, 0.4]})
    found = load_confirmation(search)
    assert found.comparisons[0].effect.difference.count == 2 and found.missing == ""
    run_dir = next(path for path in (tmp_path / "runs").iterdir() if "0.4" in (path / "metrics.jsonl").read_text())
    (run_dir / "status.json").write_text('{"state": "RUNNING"}')
    found = load_confirmation(search)
    assert found.missing == "1 of 5 runs of the confirmation have not completed."
    assert found.comparisons[0].effect.difference.count == 1 and found.comparisons[0].better is None
    assert conclude(search, found).badge == "Too few seeds (1 of 3)"


def test_seeds_that_the_search_used_are_not_fresh(tmp_path: Path) -> None:
    found = confirmation(tmp_path, {"untuned": [0.3, 0.3], "tuned": [0.5, 0.4]}, confirm_seed=1)
    assert found.used_before == (1,)


def test_the_unseen_suite_has_its_own_metrics_where_the_objective_is_none_of_a_suite(tmp_path: Path) -> None:
    confirm = {
        level: [{ENTROPY: 0.2, "eval/ood/avg_at_4": 0.1, OOD: 0.3, "eval/ood/pass_at_16": 0.4}] * 2
        for level in ("untuned", "tuned")
    }
    search = loaded(
        tmp_path, complete(0.1), objectives=((ENTROPY, "maximize"),), confirm=confirm, confirmed={"tuned": 0}
    )
    unseen = [item.objective.metric for item in load_confirmation(search).comparisons if item.unseen]
    assert unseen == [OOD, "eval/ood/pass_at_16"]


def test_a_suite_without_values_is_missing(tmp_path: Path) -> None:
    confirm = {level: [{AVG: 0.3}, {AVG: 0.4}] for level in ("untuned", "tuned")}
    search = loaded(tmp_path, complete(0.1), confirm=confirm, confirmed={"tuned": 0})
    assert load_confirmation(search).missing == "The confirmation has no values on out-of-domain problems."


def test_several_objectives_are_compared_for_every_winner(tmp_path: Path) -> None:
    search = load_search(write_search(tmp_path, front_search()))
    found = load_confirmation(search)
    assert {(item.level, item.objective.metric) for item in found.comparisons} == {
        (level, metric) for level in ("tuned-1", "tuned-2")
        for metric in (AVG, PASS, ENTROPY, OOD, "eval/ood/pass_at_16")
    }  # fmt: skip
    assert "of 10 comparisons 5 are better, 0 worse and 5 undecided" in conclude(search, found).sentence


def test_without_a_confirmation_the_reported_value_is_said_to_flatter(tmp_path: Path) -> None:
    search = loaded(tmp_path, complete(0.1), complete(0.45))
    found = load_confirmation(search)
    assert found.comparisons == () and "has not been started" in found.missing
    said = conclude(search, found)
    assert said.badge == "Unconfirmed" and "Trial 1 reported avg@16, held-out 0.450" in said.sentence


def test_a_value_is_the_mean_of_the_last_recorded_ones() -> None:
    objective = OptimizedMetric(metric="m", maximize=True, label="m", last=2)
    assert value_of({"m": [9.0, 0.2, 0.4]}, objective) == pytest.approx(0.3)
    assert value_of({"m": [0.4]}, objective) == 0.4 and math.isnan(value_of({}, objective))


def test_a_torn_last_line_of_a_record_does_not_stop_the_report(tmp_path: Path) -> None:
    search = confirmed_search(tmp_path, {"untuned": [0.3, 0.3], "tuned": [0.5, 0.4]})
    write_run(tmp_path / "runs" / "other", {AVG: 0.1})
    run_dir = next(path for path in (tmp_path / "runs").iterdir() if "0.51" in (path / "metrics.jsonl").read_text())
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "metr')
    assert load_confirmation(search).comparisons[0].tuned.mean == pytest.approx(0.45)


def test_categories_of_any_type_are_parameters(tmp_path: Path) -> None:
    space = {"a": CategoricalDistribution([None, True, "x", 3])}
    search = loaded(tmp_path, *[FakeTrial(params={"a": choice}, values=[0.1]) for choice in (None, True, "x", 3)],
                    space=space)  # fmt: skip
    assert [trial.params["a"] for trial in search.complete] == [None, True, "x", 3]
