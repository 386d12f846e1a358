"""Progress from growing files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sweeps.runs.progress import RunProgress
from sweeps.terminal.progress import Display
from trainer.contract.status import write_status


def record(run_dir: Path, step: int, reward: float, seconds: float, cut: int | None = None) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        line = json.dumps({"step": step, "metrics": {"rollout/reward": reward, "policy/entropy": 0.25}}) + "\n"
        file.write(line[:cut])
    with (run_dir / "timings.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "time": 0.0, "metrics": {"time/step_s": seconds}}) + "\n")


def test_a_run_is_read_line_by_line_and_a_torn_line_waits(tmp_path: Path) -> None:
    run = RunProgress(run_dir=tmp_path, level="x")
    run.refresh()
    assert run.state == "PLANNED"
    write_status(tmp_path, "RUNNING", step=1, steps=10)
    record(tmp_path, 0, 0.5, 2.0)
    record(tmp_path, 1, 0.75, 4.0, cut=20)
    run.refresh()
    assert (run.lines, run.metrics["rollout/reward"]) == (1, 0.5)
    assert run.step_s == 3.0  # (2 + 4) / 2
    assert run.left_s == 27.0  # 9 steps of 3 s
    assert run.figures() == ["step 1/10", "reward 0.500", "entropy 0.250", "3.00 s/step"]


def test_a_run_that_went_back_to_a_checkpoint_is_followed_on(tmp_path: Path) -> None:
    run = RunProgress(run_dir=tmp_path, level="x")
    for step in range(3):
        record(tmp_path, step, 0.1 * step, 1.0)
    run.refresh()
    (tmp_path / "metrics.jsonl").write_text("")
    run.refresh()
    record(tmp_path, 0, 0.9, 1.0)
    run.refresh()
    assert run.metrics["rollout/reward"] == 0.9


def lines_of(runs: list[RunProgress], *states: tuple[str, int]) -> list[str]:
    stream = io.StringIO()
    display = Display(runs, done_before=2, concurrency=1, stream=stream)
    for state, step in states:
        write_status(
            runs[0].run_dir, state, step=step, steps=8, message="ValueError: no" if state == "FAILED" else None
        )
        display.update()
        display.update()
    return stream.getvalue().splitlines()


@pytest.fixture
def two(tmp_path: Path) -> list[RunProgress]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return [RunProgress(run_dir=tmp_path / name, level=f"level {name}") for name in ("a", "b")]


def test_a_file_gets_a_line_at_every_quarter_and_at_the_end(two: list[RunProgress]) -> None:
    lines = lines_of(
        two,
        ("QUEUED", 0),
        ("RUNNING", 0),
        ("RUNNING", 1),
        ("RUNNING", 2),
        ("RUNNING", 3),
        ("RUNNING", 6),
        ("COMPLETED", 8),
    )
    assert [line[:22] for line in lines] == [
        "[2/4] running   level ",
        "[2/4] running   level ",
        "[2/4] running   level ",
        "[3/4] completed level ",
    ]
    assert "step 2/8" in lines[1]
    assert "step 6/8" in lines[2]


def test_a_failure_says_why(two: list[RunProgress]) -> None:
    assert lines_of(two, ("RUNNING", 0), ("FAILED", 3))[-1].endswith("ValueError: no")


def test_a_terminal_gets_a_block_that_is_redrawn(two: list[RunProgress], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    display = Display(two, done_before=0, concurrency=1, stream=stream)
    write_status(two[0].run_dir, "RUNNING", step=4, steps=8)
    record(two[0].run_dir, 0, 0.5, 2.0)
    display.update()
    display.update()
    display.close()
    block = "[0/2]  1 waiting  left 8 s\n  level a  step 4/8  reward 0.500  entropy 0.250  2.00 s/step  left 8 s\n"
    assert stream.getvalue() == block + "\x1b[2A\x1b[J" + block + "\x1b[2A\x1b[J"
