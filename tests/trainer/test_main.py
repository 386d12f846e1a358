"""Bad input to ``python -m trainer``: one sentence, exit code 2, no traceback, nothing written where it does harm."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import run_config, write_run

from trainer.__main__ import main
from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The trainer takes over some signals; the process of the tests wants them back."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error besides warnings: exactly one line."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line and not line.startswith("warning:")]
    assert captured.out == "" and len(lines) == 1, captured
    return lines[0]


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "holds no run.yaml" in sentence(capsys)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no run.yaml" in sentence(capsys)
    assert list(tmp_path.iterdir()) == [], "a folder given by mistake stays as it is"


@pytest.mark.parametrize("text", ["a: [1, 2", "12", "- 1\n- 2\n", "\x00"])
def test_a_run_yaml_that_cannot_be_read(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert main([str(tmp_path)]) == 2
    assert "run.yaml" in sentence(capsys)


def test_a_status_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path)
    folder.status_file.write_text('{"state": "COMP')
    assert main([str(tmp_path)]) == 2
    assert "status.json is not JSON" in sentence(capsys)
    assert folder.status_file.read_text() == '{"state": "COMP'


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown setting": ({"optim.lrr": 1.0}, "optim.lrr is not a setting of OptimConfig: did you mean 'lr'?"),
    "unknown group": ({"optimm.lr": 1.0}, "optimm is not a part of a configuration: did you mean 'optim'?"),
    "setting of a component": ({"rollout.groupsize": 4}, "did you mean 'group_size'?"),
    "component that is not there": (
        {"surrogate": {"_target_": "trainer.objective.surrogates.ppo_clip.PPOClap"}},
        "did you mean 'PPOClip'?",
    ),
    "wrong type": ({"steps": "many"}, "steps='many' cannot be used: give a whole number"),
    "out of range": ({"surrogate.clip_high": -1.0}, "surrogate.clip_high=-1"),
    "evaluation k above n": ({"evaluation.ks": [1, 64]}, "evaluation.ks"),
    "unknown suite": ({"evaluation.suites": ["heldin"]}, "did you mean 'heldout'?"),
    "impossible task": (
        {"task.num_prompts": 9999},
        "task.num_prompts=9999 cannot be used: give a whole number",
    ),
    "more updates than prompts": ({"optim.updates_per_rollout": 8}, "optim.updates_per_rollout=8"),
    "model folder that is not there": ({"model.path": "/nowhere/model"}, "model.path='/nowhere/model' holds no model"),
    "weights computed with in another type": (
        {"model.dtype": "bfloat16", "hardware.mixed_precision": "fp16"},
        "hardware.mixed_precision='fp16' cannot be used: weights in bfloat16",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD)
def test_a_bad_configuration_is_one_sentence(
    changes: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, {"steps": 0, "evaluation.every": 0} | changes | _evaluated(changes))
    assert main([str(tmp_path)]) == 2
    said = sentence(capsys)
    assert expected in said
    status = folder.read_status()
    assert status is not None and status.state == "FAILED" and status.message == said
    assert not folder.metrics.exists() and not folder.checkpoints.exists()


def _evaluated(changes: dict[str, Any]) -> dict[str, Any]:
    return {"evaluation.every": 2} if any(key.startswith("evaluation") for key in changes) else {}


@pytest.mark.parametrize("missing", ["weights", "config"])
def test_a_model_folder_without_weights(missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / ("config.json" if missing == "weights" else "model.safetensors")).write_text("{}")
    write_run(tmp_path / "run", {"model.path": str(model)})
    assert main([str(tmp_path / "run")]) == 2
    assert "holds no model: expected config.json and *.safetensors" in sentence(capsys)


def test_a_bad_start_keeps_the_progress_that_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, {"optim.lr": -1.0})
    folder.write_status("PREEMPTED", 3, 4)
    assert main([str(tmp_path)]) == 2
    status = folder.read_status()
    assert status is not None and (status.state, status.step, status.steps) == ("FAILED", 3, 4)


def check(
    requests: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(request) + "\n" for request in requests)))
    code = main(["--check"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out.splitlines()


def test_check_says_nothing_about_a_good_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = run_config({"optim.updates_per_rollout": 2})
    assert check([{"config": good, "where": "a=1"}, {"config": good}], monkeypatch, capsys) == (0, [])


def test_check_warns_without_failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check([{"config": run_config({"surrogate.clip_high": 0.28}), "where": "a=1"}], monkeypatch, capsys)
    assert code == 0 and len(lines) == 1
    assert lines[0].startswith("warning: ") and "inert" in lines[0] and lines[0].endswith(" (in a=1)")


def test_check_names_each_problem_and_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = {"optim.updates_per_rollout": 2}
    requests = [
        {"config": run_config(two | {"optim.lr": -1.0}), "where": "lr=-1"},
        {"config": run_config(two), "where": "fine"},
        {"config": run_config(two | {"task.num_prompts": 0})},
        {"config": run_config(two | {"model.path": "./nowhere"}), "where": "model"},
    ]
    code, lines = check(requests, monkeypatch, capsys)
    assert code == 2 and len(lines) == 3
    assert "optim.lr=-1.0" in lines[0] and lines[0].endswith(" (in lr=-1)")
    assert "task.num_prompts=0 cannot be used" in lines[1] and not lines[1].endswith(")")
    assert "'./nowhere' holds no model" in lines[2]


def test_check_refuses_a_clip_factor_that_would_do_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config() | {"factor": {"name": "clip_high", "key": "surrogate.clip_high"}}
    code, lines = check([{"config": config}], monkeypatch, capsys)
    assert code == 2 and "clip_high" in lines[0] and "optim.updates_per_rollout" in lines[0]


def test_check_of_something_that_is_no_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("{not json\n[1]\n{}\n"))
    assert main(["--check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("config" in line for line in lines)


def test_no_folder_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([])
    assert leave.value.code == 2 and "name at least one run folder" in capsys.readouterr().err


def test_the_command_itself(tmp_path: Path) -> None:
    """The exit code and the sentence reach a shell."""
    command = [sys.executable, "-m", "trainer", str(tmp_path / "with space and é")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "holds no run.yaml" in done.stderr


def test_run_yaml_is_not_resolved_again(tmp_path: Path) -> None:
    """What looks like an interpolation in a frozen configuration is text."""
    folder = write_run(tmp_path, {"tracking.run_name": "${oops}"})
    assert RunFolder(tmp_path).config()["tracking"]["run_name"] == "${oops}"
    assert yaml.safe_load(folder.config_file.read_text())["tracking"]["run_name"] == "${oops}"


def test_the_next_run_does_not_wait_for_the_mlflow_copy_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Slow:
        """A mirror that says what it is asked to do."""

        def __init__(self, folder: RunFolder, config: dict[str, Any]) -> None:
            self.name = folder.path.name

        def mark_durable(self, step: int) -> None:
            said.append(f"{self.name} begins")

        def end(self) -> None:
            said.append(f"{self.name} ends")

        def close(self) -> None:
            said.append(f"{self.name} is waited for")

    def train(run: Any, folder: RunFolder, engines: Any, **hooks: Any) -> str:
        hooks["durable"](-1)
        return "COMPLETED"

    monkeypatch.setattr("trainer.tracking.mirror.Mirror", Slow)
    monkeypatch.setattr("trainer.loop.train", train)
    folders = [write_run(tmp_path / name, {"seed": seed}) for seed, name in enumerate("ab")]
    assert main([str(folder.path) for folder in folders]) == 0
    assert said[:4] == ["a begins", "a ends", "b begins", "b ends"]
    assert sorted(said[4:]) == ["a is waited for", "b is waited for"]
