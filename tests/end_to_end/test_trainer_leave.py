"""Signals, STOP, crashes, damaged checkpoints, full disks: exit codes, states, and that nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from disks import fill, small_disk
from runs import record, run_config, steps, write_run

from tests.end_to_end.conftest import ENVIRONMENT
from trainer.contract import run_yaml
from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder

pytestmark = pytest.mark.slow  # every test starts the trainer, most of them twice

STEP = "trainer.update.gradient:Learner.step"
GENERATE = "trainer.engine.transformers:_Transformers.generate"
START = "trainer.engine.transformers:TransformersEngine.start"


def state(folder: RunFolder) -> tuple[str, int, int]:
    status = folder.read_status()
    assert status is not None
    return status.state, status.step, status.steps


@pytest.mark.parametrize("name", ["term", "usr1", "usr2"])
def test_a_signal_lets_the_step_finish_and_leaves_a_checkpoint(name, trainer, undisturbed, tmp_path: Path) -> None:
    # checkpoint.every is larger than the run: the checkpoint found afterwards is the signal's own.
    folder = write_run(tmp_path, {"checkpoint.every": 10})
    assert trainer(folder, faults=((STEP, 2, name),)) == 20
    assert state(folder) == ("PREEMPTED", 2, 4)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-000002"]
    assert trainer(folder) == 0
    assert state(folder) == ("COMPLETED", 4, 4)
    assert record(folder) == record(undisturbed)


def test_a_signal_during_start_is_not_lost(trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert trainer(folder, faults=((START, 1, "usr2"),)) == 20
    assert state(folder) == ("PREEMPTED", 0, 4)
    assert not folder.metrics.exists()
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


def test_a_signal_in_the_last_step_does_not_keep_a_run_from_ending(trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert trainer(folder, faults=((STEP, 4, "term"),)) == 0
    assert record(folder) == record(undisturbed)


def test_runs_that_a_signal_kept_from_starting_are_called_for(trainer, tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "1", {"steps": 1}), write_run(tmp_path / "2", {"steps": 1, "seed": 1})
    assert trainer(first, second, faults=((STEP, 1, "term"),)) == 20
    assert first.read_status().state == "COMPLETED"
    assert second.read_status() is None


def test_ctrl_c_cancels_and_the_run_can_go_on(trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert trainer(folder, faults=((STEP, 3, "int"),)) == 130
    assert state(folder) == ("CANCELLED", 2, 4)
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


def test_a_stop_file_ends_the_run_at_the_next_step_boundary(trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"checkpoint.every": 10})
    folder.stop.touch()
    assert trainer(folder) == 10
    assert state(folder) == ("PRUNED", 0, 4)
    assert not folder.metrics.exists(), "a run that is asked to stop before it begins does no step"
    folder.stop.unlink()
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


def test_a_run_that_a_person_does_not_want_any_more_is_cancelled(trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"checkpoint.every": 10})
    folder.stop.write_text("cancel\n")
    assert trainer(folder) == 10
    assert state(folder) == ("CANCELLED", 0, 4)
    folder.stop.unlink()
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


def test_stop_in_the_middle_keeps_what_was_done(trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"checkpoint.every": 10})
    assert trainer(folder, faults=(("trainer.storage.record:RunFolder.write_status", 3, "stop"),)) == 10
    assert state(folder) == ("PRUNED", 2, 4)
    assert steps(folder) == [0, 1]
    assert trainer(folder) == 10, "the file is still there"
    assert state(folder) == ("PRUNED", 2, 4)
    folder.stop.unlink()
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


def test_stop_counts_for_more_than_a_signal(trainer, tmp_path: Path) -> None:
    # A preempted run is queued again, which is not what somebody wants who asked it to stop.
    folder = write_run(tmp_path)
    assert (
        trainer(folder, faults=((STEP, 2, "term"), ("trainer.storage.record:RunFolder.write_status", 3, "stop"))) == 10
    )
    assert state(folder)[0] == "PRUNED"


def test_a_completed_run_is_left_alone(trainer, undisturbed, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(undisturbed.path, tmp_path / "copy"))
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert trainer(folder, faults=((START, 1, "raise"),)) == 0
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_configuration_is_refused(trainer, undisturbed, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(undisturbed.path, tmp_path / "copy"))
    folder.status_file.unlink()
    folder.config_file.write_text(run_yaml.dumps(run_config({"optim.lr": 1e-3})))
    before = record(folder)
    assert trainer(folder) == 2
    said = trainer.log.read_text()
    assert "belongs to configuration" in said and "Traceback" not in said
    assert state(folder)[0] == "FAILED" and "belongs to configuration" in folder.read_status().message
    assert record(folder) == before, "nothing was overwritten"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over(name, trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert trainer(folder, faults=((STEP, 4, "kill"),)) == -9
    newest = folder.checkpoints / "step-000003" / name
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert trainer(folder) == 0
    assert "step-000003 is damaged" in trainer.log.read_text()
    assert record(folder) == record(undisturbed)


def test_a_crash_leaves_a_traceback_and_does_not_stop_the_next_run(trainer, undisturbed, tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "1", {"seed": 1}), write_run(tmp_path / "2")
    assert trainer(first, second, faults=((GENERATE, 3, "raise"),)) == 1
    assert state(first)[0] == "FAILED" and first.read_status().message == "RuntimeError: injected"
    assert "injected" in (first.path / "attempts" / "1" / "traceback").read_text()
    assert record(second) == record(undisturbed), "the same numbers after another run as in a process of its own"


def test_a_bad_configuration_does_not_stop_the_next_run(trainer, undisturbed, tmp_path: Path) -> None:
    bad, good = write_run(tmp_path / "1", {"optim.lr": -1}), write_run(tmp_path / "2")
    assert trainer(bad, good) == 2
    assert state(bad)[0] == "FAILED" and "optim.lr=-1" in bad.read_status().message
    assert record(good) == record(undisturbed)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(trainer, tmp_path: Path) -> None:
    # Five factors of 1e9 overflow float32, whatever the advantage of a token; among 64 responses are correct and
    # incorrect ones, so some tokens have one.
    changes: dict[str, object] = {"rollout.prompts_per_step": 8, "rollout.group_size": 8}
    for name in "abcde":
        changes |= {f"weight.{name}._target_": "trainer.objective.weights.sign.Sign"}
        changes |= {f"weight.{name}.{sign}": 1e9 for sign in ("positive", "negative")}
    folder = write_run(tmp_path, changes)
    assert trainer(folder) == 1
    assert state(folder) == ("FAILED", 0, 4) and "not finite" in folder.read_status().message
    assert "NonFiniteLoss" in (folder.path / "attempts" / "1" / "traceback").read_text()
    batch = torch.load(folder.path / "nonfinite_batch.pt", weights_only=True)
    assert batch["inputs"].shape == batch["mask"].shape and batch["mask"].any()
    assert not folder.metrics.exists() and not folder.checkpoints.exists()


@pytest.mark.parametrize(("at", "call"), [("os:write", 5), ("trainer.storage.parts:save_file", 3), ("os:fsync", 12)])
def test_a_full_disk_is_one_sentence_and_loses_nothing(at, call, trainer, undisturbed, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    assert trainer(folder, faults=((at, call, "full"),)) == 1
    said = trainer.log.read_text()
    assert "no space left" in said and "Traceback" not in said, said
    # Where not even the status can be written, the old one stays: RUNNING, of a process that is gone.
    assert state(folder)[0] == ("RUNNING" if at == "os:fsync" else "FAILED")
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed)


# Room for: nothing at all, the first lines, half of the first checkpoint, one and a half checkpoints.
@pytest.mark.parametrize("free", [0, 20_000, 5_000_000, 16_000_000])
def test_a_really_full_disk_stops_the_run_and_room_lets_it_go_on(free, trainer, undisturbed, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64m") as disk:
        folder = write_run(disk / "run")
        ballast = fill(disk, free)
        assert trainer(folder) == 1
        said = trainer.log.read_text()
        assert said.count("no space left") == 1 and "Traceback" not in said, said
        before = {path.name for path in folder.checkpoints.glob("*")}
        assert all(name.startswith("step-") for name in before), "no half checkpoint takes room"
        ballast.unlink()
        assert trainer(folder) == 0
        assert record(folder) == record(undisturbed)


def test_a_full_disk_that_holds_the_log_too_loses_nothing(trainer, undisturbed, tmp_path: Path) -> None:
    """A process of its own: what it could not print must not change its exit code."""
    with small_disk(tmp_path / "disk", "64m") as disk:
        folder = write_run(disk / "run")
        command = [sys.executable, "-m", "trainer", str(folder.path)]
        with (disk / "out").open("wb") as out:
            ballast = fill(disk, 8 * 4096)  # room for the lines of the start, none for a checkpoint
            done = subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=out, stderr=out)
        assert done.returncode == 1
        assert not list(folder.checkpoints.glob("*"))
        ballast.unlink()
        assert trainer(folder) == 0
        assert record(folder) == record(undisturbed)


def test_status_of_a_run_names_its_process(undisturbed) -> None:
    status = undisturbed.read_status()
    assert status.pid > 0 and status.host and status.attempt == 1
