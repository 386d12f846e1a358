"""The loop in this process: same seed, same bytes; what several updates do; that a forgotten weight sync is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import COIN, MOVING, metrics, record, run_config, write_run
from whole_runs import preempted_once, trained

import trainer.update.update
from trainer import loop
from trainer.batch.types import Prompt
from trainer.contract.settings import ConfigError
from trainer.engine.base import EnginePool
from trainer.engine.transformers import _Transformers
from trainer.loop import train
from trainer.metrics.table import check, find
from trainer.objective.objective import Objective
from trainer.objective.regularizers.dph import DPH
from trainer.rollout.sampler import PromptStream, Sampler
from trainer.session.session import open_session
from trainer.setup.build import build_run
from trainer.storage.record import RunFolder
from trainer.update.logprob_gap import EngineMismatch
from trainer.update.update import NonFiniteLoss


@pytest.fixture(scope="module")
def engines() -> Iterator[EnginePool]:
    pool = EnginePool()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def run_of_seed_0(engines: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("seed_0"), engines)


def test_same_configuration_and_seed_give_the_same_bytes(
    run_of_seed_0: RunFolder, engines: EnginePool, tmp_path: Path
) -> None:
    # In between, the engine serves a run with other weights, and somebody uses up random numbers.
    trained(tmp_path / "other", engines, {"seed": 7, "optim.lr": 1e-2, "steps": 1})
    torch.rand(17)
    again = trained(tmp_path / "again", engines)
    assert record(again) == record(run_of_seed_0)
    fresh = EnginePool()
    assert record(trained(tmp_path / "fresh", fresh)) == record(run_of_seed_0)
    fresh.close()


def test_every_metric_lies_in_its_declared_range(run_of_seed_0: RunFolder) -> None:
    # Intervals in reports are held to it. Estimates that are 0 in exact arithmetic may miss 0 by rounding.
    outside = []
    for logged in metrics(run_of_seed_0):
        for key, value in logged.items():
            low, high = find(key).range  # type: ignore[union-attr]
            if (low is not None and value < low - 1e-6) or (high is not None and value > high + 1e-6):
                outside.append((key, value))
    assert outside == []


def test_another_seed_gives_other_rollouts_from_the_same_model(
    run_of_seed_0: RunFolder, engines: EnginePool, tmp_path: Path
) -> None:
    other = trained(tmp_path, engines, {"seed": 1, "steps": 1})
    ours, theirs = metrics(run_of_seed_0)[0], metrics(other)[0]
    assert ours["policy/surprisal"] != theirs["policy/surprisal"]
    # The first evaluation is of the same weights with the same noise, whatever the seed of the run.
    assert {k: v for k, v in ours.items() if k.startswith("eval/")} == {
        k: v for k, v in theirs.items() if k.startswith("eval/")
    }


def test_every_step_and_the_final_evaluation_are_recorded(run_of_seed_0: RunFolder) -> None:
    lines = metrics(run_of_seed_0)
    assert len(lines) == 5
    assert [any(key.startswith("eval/") for key in line) for line in lines] == [True, False, True, False, True]
    assert ["entropy/delta_measured" in line for line in lines] == [True, False, True, False, False]
    assert [line.get("policy/updates") for line in lines] == [1.0, 2.0, 3.0, 4.0, None]
    assert [line.get("engine/weight_version") for line in lines] == [0.0, 1.0, 2.0, 3.0, None]
    for name in ("samples.jsonl", "reliability.jsonl"):
        assert '"step":4' in (run_of_seed_0.path / name).read_text(), "the final evaluation has samples too"
    check({key for line in lines for key in line})


def test_what_of_a_suite_is_trained_on_is_looked_for_once_at_the_start(run_of_seed_0: RunFolder) -> None:
    shares = [line.get("eval/heldout/contaminated_frac") for line in metrics(run_of_seed_0)]
    assert shares == [0.0, None, None, None, None]
    rows = [json.loads(line) for line in run_of_seed_0.contamination.read_text().splitlines()]
    assert [(row["step"], row["suite"], row["overlapping"], row["words"]) for row in rows] == [
        (0, "heldout", 0, 8),
        (0, "ood", 0, 8),
    ]
    assert all(row["prompts"] > 0 and row["share"] == 0 and row["example"] is None for row in rows)


def test_one_update_has_ratio_one_and_no_divergence(run_of_seed_0: RunFolder) -> None:
    for line in metrics(run_of_seed_0)[:-1]:
        assert line["policy/ratio_max"] == 1.0 and line["policy/kl_old"] == 0.0
        assert line["policy/clip_frac_low"] == line["policy/clip_frac_high"] == 0.0
        assert line["engine/logprob_gap_max"] < 1e-4


@pytest.mark.parametrize(("updates", "epochs"), [(4, 1), (1, 2), (2, 2)])
def test_several_updates_leave_the_sampling_policy(
    updates: int, epochs: int, engines: EnginePool, tmp_path: Path
) -> None:
    changes = MOVING | {"optim.updates_per_rollout": updates, "optim.epochs": epochs, "steps": 2}
    lines = metrics(trained(tmp_path, engines, changes))
    assert [line["policy/updates"] for line in lines[:2]] == [updates * epochs, 2 * updates * epochs]
    assert [line["engine/weight_version"] for line in lines[:2]] == [0, updates * epochs]
    assert max(line["policy/ratio_max"] for line in lines[:2]) > 1.0
    assert max(line["policy/kl_old"] for line in lines[:2]) > 0.0
    assert all(line["engine/logprob_gap_max"] < 1e-4 for line in lines[:2])


def silent(patch: pytest.MonkeyPatch) -> None:
    """An engine that does not tell entropies."""
    rollout = Sampler._rollout
    patch.setattr(Sampler, "_rollout", lambda *given: replace(rollout(*given), sampler_entropies=None))


def curious(patch: pytest.MonkeyPatch) -> None:
    """A member that wants more of the sampling policy than log-probs and entropy."""
    patch.setattr(Objective, "old_statistics", frozenset({"sum_p2_logp_h"}))


def rounding(patch: pytest.MonkeyPatch) -> None:
    """A type in which sampler and trainer differ."""
    patch.setattr(trainer.update.update, "EXACT", frozenset())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("updates", "situation", "passes"),
    [(4, None, 0), (4, silent, 1), (4, curious, 1), (4, rounding, 1), (1, silent, 0)],
)
def test_old_terms_cost_a_pass_only_where_the_sampler_cannot_say_them(
    updates: int,
    situation: Callable[[pytest.MonkeyPatch], None] | None,
    passes: int,
    engines: EnginePool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = MOVING | {"optim.updates_per_rollout": updates, "steps": 1}
    plain = metrics(trained(tmp_path / "plain", engines, changes))[0]
    counted, measure = [], trainer.update.update.measure

    def counting(*given: Any) -> Any:
        counted.append(given)
        return measure(*given)

    monkeypatch.setattr(trainer.update.update, "measure", counting)
    if situation is not None:
        situation(monkeypatch)
    found = metrics(trained(tmp_path / "found", engines, changes))[0]
    assert len(counted) == passes
    if situation is silent:  # evaluations have the sampler's entropy, or none
        plain = {key: value for key, value in plain.items() if not key.endswith("/token_entropy")}
    for key, value in plain.items():
        # One rounding that swaps two neighbours moves a correlation of ranks by more than it moves any mean.
        assert found.pop(key) == pytest.approx(value, rel=1e-3, abs=1e-3 if "spearman" in key else 1e-5), key
    assert not found


def test_zero_learning_rate_changes_nothing(engines: EnginePool, tmp_path: Path) -> None:
    session = open_session(build_run(run_config()), write_run(tmp_path / "start"), engines)
    start = {name: value.clone() for name, value in session.policy.model.state_dict().items()}
    folder = trained(tmp_path / "run", engines, {"optim.lr": 0.0, "steps": 1})
    end = open_session(build_run(folder.config()), folder, engines).policy.model.state_dict()
    assert all(torch.equal(value, end[name]) for name, value in start.items())
    # A frozen policy: sampler and trainer differ by rounding, and no update has moved anything.
    (line,) = (line for line in metrics(folder) if "policy/entropy" in line)
    assert line["engine/logprob_gap_max"] < 1e-5
    assert line["policy/ratio_max"] == 1.0 and line["ledger/predicted"] == 0.0
    assert abs(line["ledger/measured"]) < 1e-7


@pytest.mark.parametrize("updates", [1, 2])
def test_a_skipped_sync_is_noticed_by_the_weight_version(
    updates: int, engines: EnginePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path, {"optim.updates_per_rollout": updates})
    run = build_run(folder.config())
    session = open_session(run, folder, engines)
    monkeypatch.setattr(loop, "open_session", lambda *_: session)
    monkeypatch.setattr(type(session), "sync", lambda self: None)
    with pytest.raises(EngineMismatch, match=rf"weight versions \[0\] while the trainer is at {updates}"):
        train(run, folder, engines)


@pytest.mark.parametrize("updates", [1, 2])
def test_weights_that_did_not_arrive_are_noticed_by_the_probe(
    updates: int, engines: EnginePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine says it has the new weights and samples from the old ones. Step 0 is at the initial weights.
    folder = write_run(tmp_path, MOVING | {"optim.updates_per_rollout": updates})
    load = _Transformers.load_weights

    def stamp_only(self: _Transformers, weights: object, version: int) -> None:
        if version == 0:
            load(self, weights, version)  # type: ignore[arg-type]
        self.weight_version = version

    monkeypatch.setattr(_Transformers, "load_weights", stamp_only)
    with pytest.raises(EngineMismatch, match="sampler and trainer disagree"):
        train(build_run(folder.config()), folder, engines)
    assert len(metrics(folder)) == 1, "noticed before the first update on stale rollouts was recorded"


REGULARIZERS = {
    "calibrl": ("calibrl.CalibRL", {"coef": 0.5}),
    "dph": ("dph.DPH", {"coef": 1.0, "samples": 32, "min_correct": 1}),
    "epo": ("epo.EPO", {"coef": 0.05}),
    "kl_reference": ("kl_reference.KLReference", {"coef": 0.1}),
    "lp_reg": ("lp_reg.LpReg", {"lowest_frac": 0.5, "min_p": 0.1}),
    "siren": ("siren.Siren", {"coef": 1.0, "include_crossing": True}),
}


def regularized() -> dict[str, object]:
    """Changes that take every regularizer with a state, rows or columns of its own."""
    # Three numbers, because the model rightly solves one problem in twenty with four, and DPH stores solved ones.
    changes: dict[str, object] = {"task.num_numbers": 3, "task.num_prompts": 48}
    changes |= {"optim.updates_per_rollout": 2, "optim.lr": 3e-3}
    for name, (target, settings) in REGULARIZERS.items():
        changes[f"regularizer.{name}._target_"] = f"trainer.objective.regularizers.{target}"
        changes |= {f"regularizer.{name}.{key}": value for key, value in settings.items()}
    return changes


@pytest.mark.slow
def test_a_run_with_every_regularizer_goes_on_where_it_was(engines: EnginePool, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", engines, regularized())
    folder = preempted_once(2, tmp_path / "parts", engines, regularized())
    run = build_run(folder.config())
    assert record(folder) == record(whole)
    state = json.loads((max(whole.checkpoints.glob("step-*")) / "state.json").read_text())["objective"]
    assert state["regularizer.siren"]["anchor"] > 0
    assert state["regularizer.epo"]["steps"] == 4
    retained = {entry["prompt"] for entry in state["regularizer.dph"]["stored"]}
    assert 0 < len(retained) < 48
    session = open_session(run, folder, engines)
    session.setup()
    assert {prompt.id for prompt in session.sampler.stream.prompts} == {
        prompt.id for prompt in run.task.train_prompts()
    } - retained


def test_a_member_that_keeps_every_prompt_is_refused(
    engines: EnginePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path, regularized())
    run = build_run(folder.config())
    everything = frozenset(prompt.id for prompt in run.task.train_prompts())
    monkeypatch.setattr(DPH, "excluded_prompts", lambda self, state: everything)
    with pytest.raises(ConfigError, match=r"no training prompt is left: .* use harder prompts or a stricter threshold"):
        open_session(run, folder, engines).setup()


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_weights_stay_as_they_were_when_loss_or_gradient_is_not_finite(
    bad: str, engines: EnginePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path, COIN)
    run = build_run(folder.config())
    session = open_session(run, folder, engines)
    monkeypatch.setattr(loop, "open_session", lambda *_: session)
    before = {name: value.clone() for name, value in session.policy.model.state_dict().items()}
    original = type(run.objective).loss

    def broken(self, terms, batch, scale):
        loss, surrogate = original(self, terms, batch, scale)
        # sqrt has an infinite slope at 0: the loss stays as it is, its gradient does not.
        extra = (terms.logprobs * 0).sum()
        return (loss * torch.nan if bad == "loss" else loss + extra.sqrt()), surrogate

    monkeypatch.setattr(type(run.objective), "loss", broken)
    with pytest.raises(NonFiniteLoss, match=f"the {bad} is not finite"):
        train(run, folder, engines)
    assert all(torch.equal(value, before[name]) for name, value in session.policy.model.state_dict().items())
    assert not folder.checkpoints.exists() and not folder.metrics.exists()


def test_runs_of_different_precision_follow_one_another(engines: EnginePool, tmp_path: Path) -> None:
    trained(tmp_path / "bf16", engines, {"hardware.mixed_precision": "bf16", "steps": 1})
    trained(tmp_path / "plain", engines, {"steps": 1})


def test_a_run_of_no_steps_is_an_evaluation(engines: EnginePool, tmp_path: Path) -> None:
    lines = metrics(trained(tmp_path, engines, {"steps": 0}))
    assert len(lines) == 1 and all(key.startswith("eval/") for key in lines[0])


def test_prompts_come_once_an_epoch_in_an_order_of_the_seed() -> None:
    prompts = [Prompt(id=str(number), text="") for number in range(10)]
    stream = PromptStream(prompts, seed=3)
    first, second = stream.take(10), stream.take(10)
    assert sorted(p.id for p in first) == sorted(p.id for p in second) == [str(number) for number in range(10)]
    assert first != second and stream.epoch == 2
    # Cut differently, and resumed in the middle: the same order.
    resumed = PromptStream(prompts, seed=3, position=7)
    assert resumed.take(9) == (first + second)[7:16]
    assert PromptStream(prompts, seed=4).take(10) != first


@pytest.mark.parametrize(("target_entropy", "used"), [(0.0, 0.0), (9.0, 0.125)])
def test_a_controller_answers_to_the_rollouts_that_its_coefficient_is_used_on(
    engines: EnginePool, tmp_path: Path, target_entropy: float, used: float
) -> None:
    folder = trained(
        tmp_path,
        engines,
        {
            "steps": 1,
            "regularizer.entropy_bonus._target_": "trainer.objective.regularizers.entropy_bonus.EntropyBonus",
            "controller.skywork._target_": "trainer.objective.controllers.skywork.Skywork",
            "controller.skywork.start": 0.125,
            "controller.skywork.target_entropy": target_entropy,
        },
    )
    assert metrics(folder)[0]["controller/skywork"] == used


def test_controllers_leave_zero_and_go_on_where_they_were(engines: EnginePool, tmp_path: Path) -> None:
    objective = "trainer.objective"
    changes: dict[str, object] = {
        "optim.lr": 3e-3,
        "regularizer.entropy_bonus._target_": f"{objective}.regularizers.entropy_bonus.EntropyBonus",
        "controller.skywork._target_": f"{objective}.controllers.skywork.Skywork",
        "controller.skywork.target_entropy": 9.0,
        "regularizer.aer._target_": f"{objective}.regularizers.aer.AER",
        "controller.aer._target_": f"{objective}.controllers.aer.AERController",
        "controller.aer.target_frac": 2.0,
        "weight.sign._target_": f"{objective}.weights.sign.Sign",
        "controller.par_entropy_guided._target_": f"{objective}.controllers.par_entropy_guided.ParEntropyGuided",
    }
    whole = trained(tmp_path / "whole", engines, changes)
    recorded = metrics(whole)[:-1]
    assert [line["controller/skywork"] for line in recorded] == pytest.approx([0, 0.005, 0.01, 0.015])
    entropies = [line["policy/entropy"] for line in recorded]
    expected, coefficient = [], 0.0
    for entropy in entropies:
        expected.append(coefficient)
        coefficient = max(0.0, coefficient + 0.005 * (2 * entropies[0] - entropy))
    assert [line["controller/aer"] for line in recorded] == pytest.approx(expected)
    assert expected[1] > 0

    assert record(preempted_once(2, tmp_path / "parts", engines, changes)) == record(whole)
