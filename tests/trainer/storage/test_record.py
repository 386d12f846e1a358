"""The run folder: equal runs are equal bytes, nothing is torn, a full disk says so."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.contract.files import OutOfSpace, write_atomic
from trainer.contract.records import append_records, read_records
from trainer.storage.record import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, check=lambda names: None)


def record(folder: RunFolder, steps: range, time_offset: float = 0.0) -> None:
    for step in steps:
        metrics = {"policy/entropy": 1 / (step + 3), "rollout/reward": 0.1 * step}
        folder.append(step, metrics, {"time/step_s": 1.5 + time_offset}, time=1000.0 + step + time_offset)
        folder.append_samples([{"step": step, "prompt": "1,2=3:", "response": "</script>\u2028é", "reward": 1.0}])
        folder.append_reliability([{"step": step, "suite": "train", "bin": 0, "confidence": 0.5}])


def deterministic(folder: RunFolder) -> list[bytes]:
    return [path.read_bytes() for path in (folder.metrics, folder.samples, folder.reliability)]


def test_a_line_is_standard_json_with_the_shortest_exact_floats(folder: RunFolder) -> None:
    folder.append(3, {"b": 0.1, "a": 1}, {"time/step_s": 2.5}, time=17.25)
    assert folder.metrics.read_text() == '{"metrics":{"a":1.0,"b":0.1},"step":3}\n'
    assert folder.timings.read_text() == '{"metrics":{"time/step_s":2.5},"step":3,"time":17.25}\n'


def test_non_finite_values_are_null_and_spelt_out(folder: RunFolder) -> None:
    folder.append(0, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 2.0}, {}, time=0.0)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not standard JSON")

    line = json.loads(folder.metrics.read_text(), parse_constant=refuse)
    assert line["metrics"] == {"a": None, "b": None, "c": None, "d": 2.0}
    assert line["nonfinite"] == {"a": "nan", "b": "inf", "c": "-inf"}


def test_measured_names_and_computed_names_cannot_be_confused(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="time/step_s"):
        folder.append(0, {"time/step_s": 1.0}, {}, time=0.0)
    with pytest.raises(ValueError, match="policy/entropy"):
        folder.append(0, {}, {"policy/entropy": 1.0}, time=0.0)
    assert not folder.metrics.exists()


def test_an_undeclared_metric_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="policy/entropi"):
        folder.append(0, {"policy/entropi": 1.0}, {}, time=0.0)
    folder.append(0, {"policy/entropy": 1.0}, {"time/step_s": 1.0}, time=0.0)
    assert len(list(tmp_path.iterdir())) == 2


def test_truncate_and_replay_give_the_bytes_of_the_undisturbed_run(tmp_path: Path) -> None:
    undisturbed, disturbed = (RunFolder(tmp_path / name, check=lambda names: None) for name in "ab")
    for folder in (undisturbed, disturbed):
        folder.path.mkdir()
    record(undisturbed, range(10))
    record(disturbed, range(8))
    for path in (disturbed.metrics, disturbed.samples):  # killed within a write
        with path.open("ab") as file:
            file.write(b'{"metrics":{"policy/ent')
    assert disturbed.truncate(5) == 5
    record(disturbed, range(6, 10), time_offset=100.0)
    assert deterministic(disturbed) == deterministic(undisturbed)
    times = [line["time"] for line in read_records(disturbed.timings)[0]]
    assert times == [1000.0, 1001.0, 1002.0, 1003.0, 1004.0, 1005.0, 1106.0, 1107.0, 1108.0, 1109.0]


def test_truncate_to_before_the_start_empties_everything(folder: RunFolder) -> None:
    record(folder, range(3))
    assert folder.truncate(-1) == -1
    assert deterministic(folder) == [b"", b"", b""]


def test_truncate_removes_a_torn_line_of_the_checkpointed_step(folder: RunFolder) -> None:
    record(folder, range(3))
    whole = folder.metrics.read_bytes()
    os.truncate(folder.metrics, len(whole) - 1)  # the newline of step 2 is lost
    assert folder.truncate(2) == 1
    assert folder.metrics.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])


def test_reading_goes_on_where_it_stopped_and_waits_for_whole_lines(folder: RunFolder) -> None:
    record(folder, range(2))
    first, offset = read_records(folder.metrics)
    with folder.metrics.open("ab") as file:
        file.write(b'{"metrics":{},')
    assert read_records(folder.metrics, offset=offset) == ([], offset)
    with folder.metrics.open("ab") as file:
        file.write(b'"step":2}\n{"metrics":{},"step":3}\n')
    second, end = read_records(folder.metrics, offset=offset, until=2)
    assert [line["step"] for line in first + second] == [0, 1, 2]
    assert [line["step"] for line in read_records(folder.metrics, offset=end)[0]] == [3]


def test_a_full_disk_during_an_append_cuts_the_line_off_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(folder, range(2))
    before = deterministic(folder)
    real_write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) > 20:
            return real_write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OutOfSpace, match=r"no space left to write .*timings\.jsonl"):
        folder.append(2, {"policy/entropy": 1.0}, {"time/step_s": 1.0}, time=0.0)
    with pytest.raises(OutOfSpace, match=r"samples\.jsonl"):
        folder.append_samples([{"step": 2, "response": "x" * 50}])
    assert deterministic(folder) == before


def test_a_full_disk_leaves_the_old_status(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_status("RUNNING", 3, 40)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match=r"status\.json"):
        folder.write_status("FAILED", 4, 40)
    monkeypatch.undo()
    status = folder.read_status()
    assert status is not None and (status.state, status.step) == ("RUNNING", 3)
    assert [path.name for path in folder.path.iterdir()] == ["status.json"]


def test_other_errors_keep_their_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        append_records(tmp_path / "missing" / "metrics.jsonl", [{"step": 0}])


def test_status_says_who_and_which_attempt(folder: RunFolder) -> None:
    assert folder.read_status() is None
    (folder.path / "attempts" / "2").mkdir(parents=True)
    (folder.path / "attempts" / "10").mkdir()
    write_atomic(folder.mirror, json.dumps({"run_id": "abc"}))
    folder.write_status("RUNNING", 7, 40, "warming up")
    status = folder.read_status()
    assert status is not None
    assert {
        key: getattr(status, key) for key in ("state", "step", "steps", "message", "pid", "attempt", "mlflow_run_id")
    } == {
        "state": "RUNNING",
        "step": 7,
        "steps": 40,
        "message": "warming up",
        "pid": os.getpid(),
        "attempt": 10,
        "mlflow_run_id": "abc",
    }


def test_an_unknown_state_is_refused(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="DONE"):
        folder.write_status("DONE", 0, 1)


def test_config_is_read_as_it_was_frozen(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"run\.yaml"):
        folder.config()
    folder.config_file.write_text("optim: {lr: 1e-4}\ntask: {template: 'cost ${x}'}\n")
    assert folder.config() == {"optim": {"lr": 1e-4}, "task": {"template": "cost ${x}"}}


def test_flush_reaches_every_file_that_exists(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    record(folder, range(2))
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    folder.flush()
    files = (folder.metrics, folder.timings, folder.samples, folder.reliability)
    assert flushed == [path.stat().st_ino for path in (*files, folder.path)], "and the names in the folder"


def test_stop_is_a_file(folder: RunFolder) -> None:
    assert not folder.stop_requested
    folder.stop.touch()
    assert folder.stop_requested


def test_a_rank_that_may_not_write_leaves_the_status_alone(folder: RunFolder) -> None:
    folder.write_status("RUNNING", 1, 2)
    RunFolder(folder.path, writable=False).write_status("FAILED", 0, 2)
    status = folder.read_status()
    assert status is not None and status.state == "RUNNING"


def test_no_heavy_import() -> None:
    code = (
        "import sys, trainer.storage.record, trainer.tracking.mirror;"
        "print({'torch', 'mlflow', 'omegaconf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("seed", range(5))
def test_a_writer_killed_at_any_moment_leaves_a_record_that_can_be_continued(tmp_path: Path, seed: int) -> None:
    code = (
        "import sys; from trainer.storage.record import RunFolder\n"
        "folder = RunFolder(sys.argv[1], check=lambda names: None)\n"
        "print('go', flush=True)\n"
        "for step in range(10**6): folder.append(step, {'policy/entropy': step / 7}, {'time/step_s': 1.0}, time=step)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        writer.wait(timeout=0.02 + 0.013 * seed)
    except subprocess.TimeoutExpired:
        writer.kill()
    writer.wait()
    writer.stdout.close()
    folder = RunFolder(tmp_path, check=lambda names: None)
    records, _ = read_records(folder.metrics)
    timed, _ = read_records(folder.timings)
    assert [line["step"] for line in records] == list(range(len(records)))
    assert len(timed) - len(records) in (0, 1)  # the line in metrics.jsonl commits the step
    last = folder.truncate(len(records) - 1)
    assert last == len(records) - 1
    folder.append(last + 1, {"policy/entropy": (last + 1) / 7}, {"time/step_s": 1.0}, time=0.0)
    assert [line["step"] for line in read_records(folder.timings)[0]] == list(range(last + 2))
