"""The MLflow copy: complete, without duplicates, never in the way, and able to catch up."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow.parquet
import pytest
from hypothesis import strategies as st
from waiting import wait_for

from trainer.contract.identity import group_signature, signature
from trainer.contract.status import write_status
from trainer.contract.store import ENVIRONMENT, connect
from trainer.storage.record import RunFolder
from trainer.tracking import mirror as mirror_module
from trainer.tracking.mirror import Mirror, follow
from trainer.tracking.mlflow_copy import MlflowCopy, sync
from trainer.tracking.mlflow_tags import mlflow_name, parameters, tags

History = dict[str, list[tuple[int, int, float]]]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quiet_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment that the copy sets leaks into other tests."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its schema, which takes seconds to make and a moment to copy."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{database}", "made-first")
    return database


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


def configuration(uri: str | None, **groups: Any) -> dict[str, Any]:
    tracking = {"uri": uri, "experiment": "study", "flush_every_s": 0.02, "tags": {"arm": "upper"}}
    return {
        "seed": 3,
        "steps": 12,
        "optim": {"lr": 1e-4, "betas": [0.9, 0.95]},
        "weight": {},
        "task": {"prompt": "x" * 7000},
        "study": {"name": "clip", "level": "0.28", "level_index": 1},
        "factor": {"name": "clip_high"},
        "provenance": {"git": {"revision": "abc"}},
        "tracking": tracking | groups.pop("tracking", {}),
    } | groups


def run_folder(path: Path, config: dict[str, Any]) -> RunFolder:
    path.mkdir(parents=True)
    folder = RunFolder(path, check=lambda names: None)
    folder.config_file.write_text(json.dumps(config))
    return folder


def record(folder: RunFolder, steps: range, clock: float = 1000.0) -> None:
    for step in steps:
        metrics = {"policy/entropy": 1 / (step + 3), "policy/ratio_max": math.inf if step == 4 else 1.5}
        folder.append(step, metrics, {"time/step_s": clock / 7 + step}, time=clock + step / 8)
        folder.append_samples([{"step": step, "prompt": "1,2=3:", "response": "<script>é\n", "reward": 1.0}])


def checkpoint(folder: RunFolder, step: int) -> None:
    path = folder.checkpoints / f"step-{step:06d}"
    path.mkdir(parents=True)
    (path / "manifest.json").touch()


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str) -> list[Any]:
    experiment = client(uri).get_experiment_by_name("study")
    return list(client(uri).search_runs([experiment.experiment_id])) if experiment else []


def histories(uri: str, run_id: str) -> History:
    """Every point that MLflow holds of a run, but NaN, which equals nothing, and the time it took to write the line."""
    view = client(uri)
    return {
        name: sorted(
            (p.step, p.timestamp, p.value) for p in view.get_metric_history(run_id, name) if p.value == p.value
        )
        for name in view.get_run(run_id).data.metrics
        if name != "time/record_s"
    }


def expected(steps: range, clock: float = 1000.0) -> History:
    """What :func:`record` writes, with times in milliseconds; the infinity of step 4 is NaN and left out."""

    def points(value: Callable[[int], float]) -> list[tuple[int, int, float]]:
        return [(step, int(1000 * (clock + step / 8)), value(step)) for step in steps]

    return {
        "policy/entropy": points(lambda step: 1 / (step + 3)),
        "policy/ratio_max": [point for point in points(lambda step: 1.5) if point[0] != 4],
        "time/step_s": points(lambda step: clock / 7 + step),
    }


@pytest.mark.slow
def test_a_completed_run_is_copied_whole(tmp_path: Path, uri: str) -> None:
    config = configuration(uri, tracking={"parent_run_id": "feed"})
    folder = run_folder(tmp_path / "run", config)
    (folder.path / "metrics.json").write_text("[]")
    mirror = Mirror(folder, config)
    record(folder, range(12))
    folder.append_contamination([{"step": 0, "suite": "heldout", "prompts": 4, "overlapping": 1, "share": 0.25}])
    folder.append_reliability([{"step": 0, "suite": "train", "bin": 1, "confidence": 0.25, "accuracy": None}])
    folder.write_status("COMPLETED", 12, 12)
    assert mirror.close(timeout=60)

    (run,) = runs(uri)
    assert histories(uri, run.info.run_id) == expected(range(12))
    (infinite,) = [p for p in client(uri).get_metric_history(run.info.run_id, "policy/ratio_max") if p.step == 4]
    assert math.isnan(infinite.value)
    assert run.info.status == "FINISHED"
    status = folder.read_status()
    assert status is not None and run.info.end_time == int(1000 * status.time)
    assert tags(config).items() <= run.data.tags.items()
    assert (run.data.tags["state"], run.data.tags["mlflow.parentRunId"]) == ("COMPLETED", "feed")
    assert run.data.params == dict(parameters(config))
    assert folder.read_mirror()["run_id"] == run.info.run_id
    names = sorted(file.path for file in client(uri).list_artifacts(run.info.run_id))
    assert names == ["contamination.json", "metrics.json", "reliability.json", "run.yaml", "samples.json"]
    folder.write_status("COMPLETED", 12, 12)
    status = folder.read_status()
    assert status is not None and status.mlflow_run_id == run.info.run_id


def test_samples_are_a_table_for_mlflow_and_their_text_is_untouched(tmp_path: Path, uri: str) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(2))
    folder.append_samples([{"step": 2, "answer": "7"}])
    folder.write_status("COMPLETED", 2, 12)
    assert sync(folder.path)
    (run,) = runs(uri)
    path = client(uri).download_artifacts(run.info.run_id, "samples.json", str(tmp_path))
    table = json.loads(Path(path).read_text())
    assert table["columns"] == ["prompt", "response", "reward", "step", "answer"]
    assert table["data"][0] == ["1,2=3:", "<script>é\n", 1.0, 0, None]
    assert table["data"][2] == [None, None, None, 2, "7"]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "samples.json", "type": "table"}]


def test_tokens_are_copied_at_the_end_and_no_further_than_a_checkpoint_holds(tmp_path: Path, uri: str) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(8))
    folder.append_tokens({"step": step, "tokens": ["<b>", "1"], "influence": [step, 2e-6]} for step in (0, 5))
    for step in (0, 5):
        folder.keep_rollouts(step, [{"step": step, "response": "7", "logprobs": [-0.5]}])
    copy = MlflowCopy(folder, config, uri)
    copy.advance(7)
    (run,) = runs(uri)
    assert "tokens.json" not in {file.path for file in client(uri).list_artifacts(run.info.run_id)}
    folder.write_status("PREEMPTED", 8, 12)
    copy.finish(3)
    path = client(uri).download_artifacts(run.info.run_id, "tokens.json", str(tmp_path))
    table = json.loads(Path(path).read_text())
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == [
        {"influence": [0, 2e-6], "step": 0, "tokens": ["<b>", "1"]}
    ]
    kept = [file.path for file in client(uri).list_artifacts(run.info.run_id, "rollouts")]
    assert kept == ["rollouts/step-000000.parquet"]
    columns = client(uri).download_artifacts(run.info.run_id, "rollouts.parquet", str(tmp_path))
    assert pyarrow.parquet.read_table(columns).to_pylist() == [
        {"influence": [0, 2e-6], "step": 0, "tokens": ["<b>", "1"]}
    ]


@pytest.mark.slow
def test_only_what_a_checkpoint_holds_is_copied_before_the_end(tmp_path: Path, uri: str) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    mirror = Mirror(folder, config)
    record(folder, range(8))
    wait_for(lambda: len(runs(uri)) == 1)
    run_id = runs(uri)[0].info.run_id
    assert histories(uri, run_id) == {}
    mirror.mark_durable(5)
    wait_for(lambda: len(histories(uri, run_id).get("policy/entropy", [])) == 6)
    assert client(uri).get_run(run_id).info.status == "RUNNING"
    folder.write_status("PREEMPTED", 7, 12)
    assert mirror.close()
    assert histories(uri, run_id) == expected(range(6))
    assert client(uri).get_run(run_id).info.status == "KILLED"


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_without_duplicates(tmp_path: Path, uri: str) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(8))
    folder.write_status("PREEMPTED", 7, 12)
    MlflowCopy(folder, config, uri).finish(durable=5)
    assert runs(uri)[0].info.status == "KILLED"

    folder.truncate(5)
    copy = MlflowCopy(folder, config, uri)
    copy.advance(5)
    assert runs(uri)[0].info.status == "RUNNING"
    record(folder, range(6, 12), clock=5000.0)
    folder.write_status("COMPLETED", 12, 12)
    copy.finish(durable=11)
    (run,) = runs(uri)
    later = expected(range(6, 12), clock=5000.0)
    assert histories(uri, run.info.run_id) == {n: p + later[n] for n, p in expected(range(6)).items()}
    assert run.info.status == "FINISHED"


def test_points_that_a_retry_computes_again_replace_the_run(tmp_path: Path, uri: str) -> None:
    """A failed run is copied to its last step; its retry starts at checkpoint 5, with new times from 6 on."""
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(8))
    folder.write_status("FAILED", 7, 12, "loss is not finite")
    assert sync(folder.path)
    (failed,) = runs(uri)
    assert len(histories(uri, failed.info.run_id)["policy/entropy"]) == 8
    assert (failed.info.status, failed.data.tags["message"]) == ("FAILED", "loss is not finite")

    folder.truncate(5)
    record(folder, range(6, 12), clock=5000.0)
    folder.write_status("COMPLETED", 12, 12)
    assert sync(folder.path)
    (run,) = runs(uri)
    assert run.info.run_id != failed.info.run_id
    later = expected(range(6, 12), clock=5000.0)
    assert histories(uri, run.info.run_id) == {n: p + later[n] for n, p in expected(range(6)).items()}


def test_sync_twice_adds_nothing_and_needs_no_memory_of_the_run(tmp_path: Path, uri: str) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(12))
    folder.write_status("COMPLETED", 12, 12)
    assert sync(folder.path)
    (first,) = runs(uri)
    before = histories(uri, first.info.run_id)
    rows = _rows(uri)
    note = folder.read_mirror()
    folder.mirror.write_text(json.dumps({"token": note["token"]}))  # as if killed right after the run was created
    assert sync(folder.path)
    (second,) = runs(uri)
    assert second.info.run_id == first.info.run_id
    assert second.info.end_time == first.info.end_time
    assert histories(uri, second.info.run_id) == before == expected(range(12))
    assert _rows(uri) == rows


def _rows(uri: str) -> int:
    import sqlite3

    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        return int(connection.execute("select count(*) from metrics").fetchone()[0])


def test_an_interrupted_copy_is_completed(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow fails in the middle of the points; the same object, called again, sends all of them."""
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(12))
    folder.write_status("COMPLETED", 12, 12)
    monkeypatch.setattr("trainer.tracking.mlflow_copy.METRICS_A_CALL", 5)
    copy = MlflowCopy(folder, config, uri)
    copy.advance(-1)
    assert copy._client is not None
    log_batch, calls = copy._client.log_batch, []

    def fragile(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise ConnectionError("gone")
        return log_batch(*arguments, **named)

    monkeypatch.setattr(copy._client, "log_batch", fragile)
    with pytest.raises(ConnectionError):
        copy.finish(-1)
    copy.finish(-1)
    (run,) = runs(uri)
    assert histories(uri, run.info.run_id) == expected(range(12))


@pytest.mark.slow
def test_a_run_removed_meanwhile_is_made_again(tmp_path: Path, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    mirror = Mirror(folder, config)
    record(folder, range(12))
    mirror.mark_durable(5)
    wait_for(lambda: bool(runs(uri)) and len(histories(uri, runs(uri)[0].info.run_id).get("policy/entropy", [])) == 6)
    client(uri).delete_run(runs(uri)[0].info.run_id)
    mirror.mark_durable(8)
    wait_for(lambda: "cannot be written" in capfd.readouterr().err)
    folder.write_status("COMPLETED", 12, 12)
    assert mirror.close()
    (run,) = runs(uri)
    assert histories(uri, run.info.run_id) == expected(range(12))


def test_an_unreachable_server_costs_the_run_nothing(
    tmp_path: Path, uri: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = configuration("http://127.0.0.1:9")
    folder = run_folder(tmp_path / "run", nowhere)
    mirror = Mirror(folder, nowhere)
    record(folder, range(12))
    mirror.mark_durable(11)
    complaints = ""

    def complained() -> bool:
        nonlocal complaints
        complaints += capfd.readouterr().err
        return "cannot be written" in complaints

    wait_for(complained)
    folder.write_status("COMPLETED", 12, 12)
    assert not mirror.close(timeout=1.0)
    complaints += capfd.readouterr().err
    assert complaints.count("MLflow at http://127.0.0.1:9 cannot be written") == complaints.count("\n") == 1
    assert f"--sync {folder.path}" in caplog.text
    assert sync(folder.path, uri)
    assert sync(folder.path, uri)
    (run,) = runs(uri)
    assert histories(uri, run.info.run_id) == expected(range(12))


@pytest.mark.slow
def test_a_step_is_never_held_up(tmp_path: Path, uri: str) -> None:
    """The calls that a training step makes never wait: nobody reads what they say here, and yet all of them return."""
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    mirror = Mirror(folder, config)
    assert mirror._process is not None and mirror._process.stdin is not None
    assert not os.get_blocking(mirror._process.stdin.fileno())
    mirror._process.send_signal(signal.SIGSTOP)
    for step in range(30_000):  # 170 kB of steps into a pipe that holds 64
        mirror.mark_durable(step)
    mirror._process.send_signal(signal.SIGCONT)
    folder.write_status("CANCELLED", 300, 300)
    assert mirror.close()


@pytest.mark.parametrize("state", ["stranger", "zombie", "gone", "alive"])
def test_a_run_lives_as_long_as_the_process_that_wrote_its_status(tmp_path: Path, uri: str, state: str) -> None:
    """A process number that a stranger got later, or that waits to be collected, is not the run's any more."""
    folder = run_folder(tmp_path / "run", configuration(uri))
    record(folder, range(2))
    folder.write_status("RUNNING", 1, 12)
    code = "import time; time.sleep(60)" if state in ("stranger", "alive") else ""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        if state in ("zombie", "gone"):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if state == "gone":
            process.wait()
        written = time.time() - (3600.0 if state == "stranger" else 0.0)
        write_status(folder.path, "RUNNING", pid=process.pid, time=written)
        assert sync(folder.path) == (state != "alive")
    finally:
        process.kill()
        process.wait()


def test_a_copier_that_died_does_not_reach_the_run(tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    mirror = Mirror(folder, config)
    assert mirror._process is not None
    mirror._process.kill()
    mirror._process.wait()
    record(folder, range(12))
    mirror.mark_durable(5)
    folder.write_status("COMPLETED", 12, 12)
    assert not mirror.close()
    assert "--sync" in caplog.text
    assert sync(folder.path)
    assert histories(uri, runs(uri)[0].info.run_id) == expected(range(12))


def test_without_a_uri_there_is_no_process_and_no_mlflow(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", configuration(None))
    code = (
        "import os, sys; from trainer.tracking.mirror import Mirror; from trainer.storage.record import RunFolder\n"
        f"folder = RunFolder({str(folder.path)!r}); mirror = Mirror(folder, folder.config()); mirror.mark_durable(3)\n"
        "assert mirror.close() and 'mlflow' not in sys.modules\n"
        "try: os.waitpid(-1, 0)\n"
        "except ChildProcessError: print('no child')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "no child\n"
    with pytest.raises(ValueError, match=r"tracking\.uri"):
        sync(folder.path)


@pytest.mark.parametrize(
    ("state", "status"),
    [("FAILED", "FAILED"), ("CANCELLED", "KILLED"), ("PRUNED", "KILLED"), ("LOST", "KILLED"), ("PREEMPTED", "KILLED")],
)
def test_every_end_has_its_word_in_mlflow(tmp_path: Path, uri: str, state: str, status: str) -> None:
    folder = run_folder(tmp_path / "run", configuration(uri))
    record(folder, range(7))
    checkpoint(folder, 2)
    checkpoint(folder, 4)
    folder.write_status(state, 6, 12)
    assert sync(folder.path)
    (run,) = runs(uri)
    assert (run.info.status, run.data.tags["state"]) == (status, state)
    copied = range(7) if state in ("FAILED", "CANCELLED", "PRUNED") else range(4)  # a resumable run: to its checkpoint
    assert histories(uri, run.info.run_id) == expected(copied)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_killed_job_does_not_stay_running(tmp_path: Path, uri: str, whole_group: bool) -> None:
    """Killed alone, its copier notices and ends the MLflow run; killed with its group, sync does."""
    config = configuration(uri)
    folder = run_folder(tmp_path / "run", config)
    record(folder, range(7))
    checkpoint(folder, 5)
    code = (
        "import time; from trainer.tracking.mirror import Mirror; from trainer.storage.record import RunFolder\n"
        f"folder = RunFolder({str(folder.path)!r}); mirror = Mirror(folder, folder.config()); mirror.mark_durable(4)\n"
        "folder.write_status('RUNNING', 0, 12); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    try:
        wait_for(lambda: bool(runs(uri)) and len(histories(uri, runs(uri)[0].info.run_id)) == 3)
        assert not sync(folder.path)  # alive: its own mirror is at work
        assert runs(uri)[0].info.status == "RUNNING"
    finally:
        (os.killpg if whole_group else os.kill)(job.pid, signal.SIGKILL)
        job.wait()
    if whole_group:
        assert sync(folder.path)
    wait_for(lambda: runs(uri)[0].info.status == "KILLED")
    (run,) = runs(uri)
    assert run.data.tags["state"] == "LOST"
    assert histories(uri, run.info.run_id) == expected(range(5))


def test_a_run_that_has_not_started_or_may_live_elsewhere_is_left_alone(tmp_path: Path, uri: str) -> None:
    folder = run_folder(tmp_path / "run", configuration(uri))
    assert not sync(folder.path)
    folder.write_status("QUEUED", 0, 12)
    assert not sync(folder.path)
    folder.write_status("RUNNING", 0, 12)
    write_status(folder.path, "RUNNING", host="elsewhere", pid=2**22 + 1)
    assert not sync(folder.path)
    write_status(folder.path, "RUNNING", job="slurm:7@there", time=0.0)
    assert not sync(folder.path), "only the scheduler can tell"
    assert runs(uri) == []


def test_hostile_paths(tmp_path: Path, empty_store: Path) -> None:
    place = tmp_path / 'it\'s a "folder" 100% ü'
    place.mkdir()
    uri = f"sqlite:///{shutil.copy(empty_store, place / 'mlflow.db')}"
    folder = run_folder(place / "run", configuration(uri))
    record(folder, range(2))
    folder.write_status("COMPLETED", 2, 12)
    assert sync(folder.path)
    (run,) = runs(uri)
    assert histories(uri, run.info.run_id) == expected(range(2))
    assert (place / "mlartifacts" / run.info.run_id / "artifacts" / "run.yaml").is_file()


def test_no_parameter_name_makes_mlflow_refuse_the_batch() -> None:
    found = dict(parameters({"task": {"4096 (all)": 1, "a@b": 2}, "weight": {"sign": {"positive": 1.0}}}))
    assert found == {"task.4096 :28:all:29:": "1", "task.a:40:b": "2", "weight.sign.positive": "1.0"}


KEYS = st.text(alphabet="ab_.:/@= é\n4", min_size=1, max_size=12) | st.text(min_size=1, max_size=400)


@hypothesis.given(one=KEYS, other=KEYS)
@hypothesis.example("a@b", "a_b")
@hypothesis.example("a@b", "a:40:b")
@hypothesis.example("a//b", "a/b")
@hypothesis.example("x" * 300, "x" * 299)
@hypothesis.example("..", ".")
def test_different_keys_have_different_names_and_mlflow_takes_them(one: str, other: str) -> None:
    from mlflow.utils.validation import _validate_metric, _validate_param

    assert (mlflow_name(one) == mlflow_name(other)) == (one == other)
    _validate_metric(mlflow_name(one), 0.0, 0, 0)
    _validate_param(mlflow_name(one), "x")


def test_metrics_whose_names_look_alike_do_not_overwrite_each_other(tmp_path: Path, uri: str) -> None:
    folder = run_folder(tmp_path / "run", configuration(uri))
    folder.append(0, {"eval/a@b/pass": 0.25, "eval/a_b/pass": 0.75}, {}, time=1.0)
    folder.write_status("COMPLETED", 1, 1)
    assert sync(folder.path)
    (run,) = runs(uri)
    assert run.data.metrics["eval/a_b/pass"] == 0.75 and run.data.metrics["eval/a:40:b/pass"] == 0.25


def test_a_damaged_record_is_not_copied_in_part_as_if_it_were_whole(tmp_path: Path, uri: str) -> None:
    folder = run_folder(tmp_path / "run", configuration(uri))
    record(folder, range(6))
    folder.write_status("COMPLETED", 6, 6)
    whole = folder.metrics.read_bytes()
    for harm, said in ((b"nonsense\n", "damaged in line 4"), (b"", "ends at step 2, but its run is complete with 6")):
        folder.metrics.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]) + harm)
        with pytest.raises(ValueError, match=said):
            sync(folder.path)
    assert runs(uri) == [] or runs(uri)[0].info.status == "RUNNING"
    folder.metrics.write_bytes(whole)
    assert sync(folder.path)
    assert histories(uri, runs(uri)[0].info.run_id) == expected(range(6))


def test_a_server_that_does_not_answer_costs_one_short_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer.__main__ import sync_all

    monkeypatch.setattr("trainer.contract.store.PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        folders = [run_folder(tmp_path / str(number), configuration(uri)) for number in range(3)]
        for folder in folders:
            record(folder, range(2))
            folder.write_status("COMPLETED", 2, 2)
        start = time.monotonic()
        assert sync_all([folder.path for folder in folders]) == 1
        assert time.monotonic() - start < 10.0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all("does not answer (timed out): start the server" in line for line in said)


def test_tags_and_parameters_come_from_the_configuration() -> None:
    config = configuration("sqlite:///x.db")
    assert tags(config) == {
        "kind": "cell",
        "signature": signature(config),
        "group": group_signature(config),
        "seed": "3",
        "study": "clip",
        "level": "0.28",
        "level_index": "1",
        "factor": "clip_high",
        "mlflow.runName": signature(config),
        "mlflow.source.git.commit": "abc",
        "arm": "upper",
    }
    found = dict(parameters(config))
    assert found["optim.lr"] == "0.0001"
    assert found["optim.betas"] == "[0.9, 0.95]"
    assert found["weight"] == "{}"
    assert len(found["task.prompt"]) == 6000
    assert not any(name.startswith(("tracking", "provenance", "factor", "study")) for name in found)
    assert tags({"seed": 0, "factor": None, "tracking": {}})["kind"] == "cell"


def test_a_copier_without_a_run_gives_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path / "run", configuration("http://127.0.0.1:9"))
    monkeypatch.setattr(mirror_module, "LINGER_S", 0.5)
    source, sink = os.pipe()
    os.write(sink, b"3\n4\n")
    os.close(sink)
    assert follow(str(folder.path), source) == 1
    os.close(source)
