"""The parts of a search that need no processes: space, values, rules, settings; numbers by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest

from sweeps.compose.overrides import merged, parsed
from sweeps.search.context import is_tuned
from sweeps.search.entropy_rule import EntropyRule
from sweeps.search.objectives import mean_over_seeds, num_better, value_of
from sweeps.search.overview import expected_runs
from sweeps.search.settings import SearchObjective, settings
from sweeps.search.space import override, parameters, probes, suggest
from sweeps.search.store import pruner, sampler, trial_by_number
from trainer.contract.component_source import component_defaults

SPACE = {
    "method": {"type": "categorical", "choices": ["grpo", "steer", "aer"]},
    "weight.steer.estimator": {
        "type": "categorical",
        "choices": ["published", "exact"],
        "when": {"method": ["steer"]},
    },
    "weight.steer.floor": {
        "type": "float",
        "low": 0.1,
        "high": 0.2,
        "when": {"weight.steer.estimator": ["exact"]},
    },
    "optim.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "optim.epochs": {"type": "int", "low": 1, "high": 4},
}


def test_a_trial_gets_the_parameters_that_exist_and_the_same_ones_again() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    for _ in range(30):
        asked = study.ask()
        values = suggest(asked, parameters(SPACE))
        assert ("weight.steer.estimator" in values) == (values["method"] == "steer")
        assert ("weight.steer.floor" in values) == (values.get("weight.steer.estimator") == "exact")
        assert isinstance(values["optim.epochs"], int) and 1e-5 <= float(values["optim.lr"] or 0) <= 1e-2
        # What a restarted driver does with a trial that was left open.
        assert suggest(trial_by_number(study, asked.number), parameters(SPACE)) == values


def test_an_interrupted_suggestion_is_completed() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    asked = study.ask()
    first = asked.suggest_categorical("method", ["grpo", "steer", "aer"])
    values = suggest(trial_by_number(study, asked.number), parameters(SPACE))
    assert values["method"] == first and "optim.lr" in values


def test_both_ends_of_every_range_are_probed_where_the_parameter_exists() -> None:
    found = {parameter.key: ends for parameter, ends in probes(parameters(SPACE))}
    assert [values["optim.lr"] for values in found["optim.lr"]] == [1e-5, 1e-2]
    assert [values["method"] for values in found["method"]] == ["grpo", "steer", "aer"]
    assert [values["weight.steer.floor"] for values in found["weight.steer.floor"]] == [0.1, 0.2]
    assert all(values["method"] == "steer" for values in found["weight.steer.floor"])
    assert all("weight.steer.floor" not in values for values in found["method"])


@pytest.mark.parametrize(
    "value", ["inf", "1e-3", "null", "true", "small/siren", "a b'c", "[steer]", 3, 0.1, None, True]
)
def test_an_override_is_read_as_what_was_suggested(value: str | int | float | bool | None) -> None:
    read = parsed(override("a.b", value))
    assert read == (["steer"] if value == "[steer]" else value) and type(read) is type(
        ["steer"] if value == "[steer]" else value
    )


def test_the_last_override_of_a_key_counts() -> None:
    assert merged(["method=a", "optim.lr=1", "method=b", "+x=2"]) == ["optim.lr=1", "method=b", "+x=2"]
    assert [is_tuned(text) for text in ("method=a", "optim.lr=1", "output=x", "evaluation.every=3", "steps=4")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def record(folder: Path, *steps: dict[str, float | None]) -> Path:
    lines = [json.dumps({"step": step, "metrics": metrics}) for step, metrics in enumerate(steps)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_the_value_of_a_run_is_the_mean_of_its_last_records(tmp_path: Path) -> None:
    folder = record(tmp_path, {"a": 1.0, "b": 4.0}, {"a": 2.0}, {"a": 4.0}, {"b": 6.0})
    assert value_of(folder, SearchObjective(metric="a")) == 4.0
    assert value_of(folder, SearchObjective(metric="a", last=2)) == 3.0
    assert value_of(folder, SearchObjective(metric="b", last=5)) == 5.0  # sparse: evaluated every third step
    assert value_of(folder, SearchObjective(metric="c")) is None
    assert math.isnan(value_of(record(tmp_path, {"a": 1.0}, {"a": None}), SearchObjective(metric="a")) or 0.0)


def test_means_and_ranks() -> None:
    values = {"0": [1.0, 10.0], "1": [3.0, 20.0]}
    assert mean_over_seeds(values, [0, 1]) == [2.0, 15.0]
    assert mean_over_seeds(values, [0, 1, 2]) is None
    assert num_better([2.0], [[1.0], [2.0], [3.0]], [1]) == 1
    assert num_better([2.0], [[1.0], [2.0], [3.0]], [-1]) == 1
    # Dominating takes one objective that is better and none that is worse.
    assert num_better([2.0, 2.0], [[3.0, 1.0], [2.0, 3.0], [3.0, 3.0], [2.0, 2.0]], [1, 1]) == 2


@pytest.mark.parametrize(
    ("entropies", "word"),
    [
        ([0.3, 0.2, 0.1], None),
        ([0.3, 0.02, 0.02], None),  # not for long enough
        ([0.3, 0.02, 0.02, 0.02], "collapse: 0.02 nats, below 0.1 of the first 0.3"),
        ([0.3, 0.02, 0.04, 0.02, 0.02], None),  # it recovered in between
        ([0.3, 1.3, 1.4, 1.5], "explosion: 1.5 nats, 4 times the first 0.3 exceeded"),
        ([0.3, math.nan, math.nan, math.nan], "explosion"),
        ([], None),
    ],
)
def test_collapse_and_explosion(entropies: list[float], word: str | None) -> None:
    verdict = EntropyRule().verdict(entropies)
    assert verdict is None if word is None else word in (verdict or "")


def test_rules_can_be_switched_off() -> None:
    off = EntropyRule(collapse=0.0, explosion=0.0)
    assert off.verdict([0.3, 0.0, 0.0, 0.0]) is None and off.verdict([0.3, 9.0, 9.0, 9.0]) is None


def test_the_median_compares_sparse_steps() -> None:
    made = settings(node(prune_startup=2))
    study = optuna.create_study(direction="maximize", pruner=pruner(made.search), sampler=sampler(made.search, 0))
    for height in (1.0, 2.0):
        asked = study.ask()
        for step in (10, 20):
            asked.report(height * step, step)
        study.tell(asked, height)
    low, high = study.ask(), study.ask()
    low.report(10.0 * 1.4, 10)  # the median of the earlier at step 10 is 15
    high.report(10.0 * 1.6, 10)
    assert low.should_prune() and not high.should_prune()


def test_suggestions_follow_from_the_number_of_the_trial() -> None:
    made = settings(node()).search

    def first(number: int) -> float:
        study = optuna.create_study(sampler=sampler(made, number))
        return study.ask().suggest_float("x", 0, 1)

    assert first(4) == first(4) != first(5)


def test_expected_runs_by_hand() -> None:
    class SearchContext:
        settings = settings(node(rungs=[1, 3], reduction=3))

    # 30 trials on one seed, a third of them on two more: 30 + 10 * 2.
    assert expected_runs(SearchContext(), 30) == pytest.approx(50.0)  # type: ignore[arg-type]


def node(**changes: object) -> dict[str, object]:
    base = component_defaults("sweeps.search.settings.Search")
    return base | {"objectives": [{"metric": "eval/heldout/avg_at_16"}], "space": SPACE} | changes
