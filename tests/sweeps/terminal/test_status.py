"""The table of ``python -m sweeps status``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sweeps.runs.progress import RunProgress
from sweeps.terminal.status import show, status_lines
from tests.sweeps.conftest import Clock
from trainer.contract.liveness import beat
from trainer.contract.status import write_status


def followed(tmp_path: Path, state: str, number: int = 0, *, step: int = 5, message: str | None = None) -> RunProgress:
    run_dir = tmp_path / f"{state}{number}"
    run_dir.mkdir()
    write_status(run_dir, state, step=step, steps=10, message=message)
    lines = [{"step": n, "metrics": {"rollout/reward": 0.5, "policy/entropy": 0.25}} for n in range(step)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    timings = [{"step": n, "time": 0.0, "metrics": {"time/step_s": 12.0}} for n in range(step)]
    (run_dir / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in timings))
    run = RunProgress(run_dir=run_dir, level="0.28", seed=str(number))
    run.refresh()
    return run


def test_a_row_says_level_seed_state_step_reward_entropy_speed_and_time_left(tmp_path: Path) -> None:
    header, row, _, total = status_lines([followed(tmp_path, "RUNNING", 3)])
    assert header.split() == ["level", "seed", "state", "step", "reward", "entropy", "speed", "left"]
    assert row.split() == ["0.28", "3", "RUNNING", "5/10", "0.500", "0.250", "12.00", "s/step", "60", "s"]
    assert total == "1 running; left about 60 s"


def test_why_a_cell_does_not_go_on_is_in_its_row(tmp_path: Path) -> None:
    lines = status_lines([followed(tmp_path, state, message=f"because {state}") for state in ("FAILED", "LOST")])
    assert lines[1].endswith("because FAILED") and lines[2].endswith("because LOST")


def test_a_cell_that_has_gone_silent_is_named(tmp_path: Path, clock: Clock) -> None:
    run = followed(tmp_path, "RUNNING")
    beat(run.run_dir)
    assert "silent" not in status_lines([run])[1]
    clock.pass_s(600)
    assert status_lines([run])[1].endswith("silent for 10 min")


def test_a_screen_that_is_too_small_keeps_what_is_urgent(tmp_path: Path) -> None:
    states = ["COMPLETED"] * 10 + ["FAILED", "RUNNING"]
    runs = [followed(tmp_path, state, number) for number, state in enumerate(states)]
    lines = status_lines(runs, height=8)
    assert len(lines) <= 8
    assert [line.split()[2] for line in lines[1:4]] == ["RUNNING", "FAILED", "COMPLETED"]
    assert "... and 9 more" in lines and lines[-1].startswith("1 running, 1 failed, 10 completed")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_table_is_redrawn_in_place_and_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, screen, looks = followed(tmp_path, "RUNNING"), Screen(), []
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")

    def before_each() -> None:
        looks.append(1)
        if len(looks) == 3:
            write_status(run.run_dir, "COMPLETED", step=10)

    show([run], screen, before_each=before_each, concurrency=1, every_s=0.01)
    text = screen.getvalue()
    assert len(looks) == 3 and text.count("\x1b[H") == 3 and "\x1b[2J" not in text
    frames = text.split("\x1b[H")[1:]
    assert "RUNNING" in frames[0] and "COMPLETED" in frames[2]
    assert all(len(line.removesuffix("\x1b[K")) < 60 for frame in frames for line in frame.splitlines())
