"""Kill -9 at any moment, start again: the record and the weights are those of the undisturbed run, byte for byte."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from copiers import copied, recorded
from runs import MOVING, metrics, record, steps, write_run

from trainer.storage.record import RunFolder
from trainer.tracking.mlflow_copy import sync

ENGINE = "trainer.engine.transformers:_Transformers"

# (where, at which call, what). A run of 4 steps generates 10 times (2 suites at steps 0, 2 and 4), updates 4 times,
# saves 4 checkpoints and writes its status 6 times.
MOMENTS = {
    "during generation": (f"{ENGINE}.generate", 4, "kill"),
    "after an update": ("trainer.update.gradient:Learner.step", 3, "kill_after"),
    "writing the weights of a checkpoint": ("trainer.storage.parts:write_tensors", 2, "kill_after"),
    "before a checkpoint has its name": ("trainer.storage.checkpoint:write_manifest", 3, "kill_after"),
    "before pruning checkpoints": ("trainer.storage.checkpoint:_prune", 3, "kill"),
    "half way through a line of timings or metrics": ("os:write", 9, "tear"),
    "half way through the first line": ("os:write", 1, "tear"),
    "writing the status": ("trainer.contract.status:write_atomic", 4, "kill"),
    "before the final evaluation": ("trainer.storage.checkpoint:save", 4, "kill_after"),
    "after the final evaluation": ("trainer.storage.record:RunFolder.append", 5, "kill"),
    "during the first evaluation": (f"{ENGINE}.generate", 2, "kill"),
    "after generation": (f"{ENGINE}.generate", 7, "kill_after"),
    "before an update": ("trainer.update.gradient:Learner.step", 2, "kill"),
    "before the weight sync": (f"{ENGINE}.load_weights", 3, "kill"),
    "between timings and metrics": ("trainer.storage.record:append_records", 6, "kill_after"),
    "before COMPLETED is written": ("trainer.storage.record:RunFolder.append", 5, "kill_after"),
}
QUICK = ("after an update", "writing the weights of a checkpoint", "half way through a line of timings or metrics")
CASES = [
    pytest.param(moment, id=name, marks=[pytest.mark.slow] * (name not in QUICK)) for name, moment in MOMENTS.items()
]


@pytest.mark.parametrize("moment", CASES)
def test_a_killed_run_ends_as_if_nothing_had_happened(moment, trainer, undisturbed: RunFolder, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert trainer(folder, faults=(moment,)) == -signal.SIGKILL, trainer.log.read_text()
    assert trainer(folder) == 0, trainer.log.read_text()
    assert folder.read_status().state == "COMPLETED"
    assert steps(folder) == [0, 1, 2, 3, 4]
    assert record(folder) == record(undisturbed)


def test_a_run_killed_again_and_again_gets_there(trainer, undisturbed: RunFolder, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    # Each attempt does one step (a checkpoint follows every step) and dies in the next.
    for _ in range(3):
        assert trainer(folder, faults=(("trainer.update.gradient:Learner.step", 2, "kill"),)) == -signal.SIGKILL
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


def test_steps_since_the_last_checkpoint_are_done_again(trainer, undisturbed: RunFolder, tmp_path: Path) -> None:
    # Checkpoints after steps 3 and 4 (the last) only: `checkpoint` is outside a run's identity, so nothing may change.
    folder = write_run(tmp_path, {"checkpoint.every": 3})
    assert trainer(folder, faults=(("trainer.update.gradient:Learner.step", 3, "kill"),)) == -signal.SIGKILL
    assert steps(folder) == [0, 1]
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


ROLLOUTS = "trainer.objective.rollouts"
PLANS = {
    "dynamic sampling": {
        "rollout._target_": f"{ROLLOUTS}.dynamic.Dynamic",
        "rollout.oversampling": 1.0,
        "rollout.when_short": "proceed",
        "rollout.temperature_end": 1.5,
    },
    "branches": {"rollout._target_": f"{ROLLOUTS}.cure.Cure", "rollout.min_characters": 1, "rollout.top_k": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_a_killed_run_that_chooses_its_rollouts_ends_as_if_nothing_had_happened(
    plan: str, trainer, tmp_path: Path
) -> None:
    # Killed within a step, between two draws; and after one, before anything of it is saved.
    changes = MOVING | PLANS[plan] | {"evaluation.every": 9, "steps": 3}
    reference = write_run(tmp_path / "reference", changes)
    assert trainer(reference) == 0, trainer.log.read_text()
    if plan == "dynamic sampling":
        generated = [line["rollout/generated"] for line in metrics(reference)[:-1]]
        assert max(generated) > 16, "at least one step draws more than once"
        position = json.loads((max(reference.checkpoints.glob("step-*")) / "state.json").read_text())["position"]
        assert position == sum(generated) / 4
    folder = write_run(tmp_path / "killed", changes)
    for moment in ((f"{ENGINE}.generate", 4, "kill_after"), ("trainer.update.gradient:Learner.step", 2, "kill_after")):
        assert trainer(folder, faults=(moment,)) == -signal.SIGKILL, trainer.log.read_text()
    assert trainer(folder) == 0, trainer.log.read_text()
    assert record(folder) == record(reference)


HOSTILE = 'it\'s a "run" 100% ü $HOME ; # \\ * \n'
"""A name that a shell, a URI or a format string would stumble over."""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(12))  # `python -m benchmarks.resilience` does more
def test_kill_at_random_moments(number: int, trainer, tmp_path: Path) -> None:
    """Off-policy updates, two epochs and two kills in a row: at a place drawn from the case's number, and by the clock,
    wherever the process then is.
    """
    changes = {"optim.updates_per_rollout": 2, "optim.epochs": 2, "checkpoint.every": 2, "seed": number % 3}
    reference = write_run(tmp_path.parent / f"reference-{number % 3}", changes)
    assert trainer(reference) == 0
    rng = random.Random(number)
    at, do = rng.choice([(at, do) for at, _, do in MOMENTS.values()])
    folder = write_run(tmp_path / HOSTILE, changes)
    faults: list[dict[str, Any]] = [{"faults": ((at, rng.randint(1, 8), do),)}, {"kill_after_s": rng.uniform(0.1, 1.5)}]
    rng.shuffle(faults)
    for fault in faults:
        assert trainer(folder, **fault) in (-signal.SIGKILL, 0), trainer.log.read_text()
    assert trainer(folder) == 0, trainer.log.read_text()
    assert record(folder) == record(reference)


@pytest.mark.slow
@pytest.mark.parametrize("do", ["kill", "kill_copier", "kill_both"])
def test_a_kill_of_trainer_or_copier_leaves_record_and_copy_equal(
    do: str, trainer, undisturbed: RunFolder, tmp_path: Path
) -> None:
    """The trainer with its real copier and a store in a hostile place; what is missing at the end, ``sync`` brings."""
    store = tmp_path / "it's a store ü" / "mlflow.db"
    changes = {"tracking.uri": f"sqlite:///{store}", "tracking.experiment": "study", "tracking.flush_every_s": 0.05}
    folder = write_run(tmp_path / HOSTILE, changes)
    code = trainer(folder, faults=(("trainer.tracking.mirror:Mirror.mark_durable", 3, do),))
    assert code == (0 if do == "kill_copier" else -signal.SIGKILL), trainer.log.read_text()
    assert trainer(folder) == 0, trainer.log.read_text()
    assert record(folder) == record(undisturbed)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=changes["tracking.uri"])
    for _ in range(2):
        assert sync(folder.path)
        (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
        assert run.info.status == "FINISHED"
        assert copied(client, run.info.run_id) == recorded(folder)
