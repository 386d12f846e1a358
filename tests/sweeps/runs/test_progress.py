"""Progress from growing files."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from sweeps.runs.progress import RunProgress
from sweeps.terminal.progress import Display, sparkline
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


def test_a_file_gets_a_line_at_the_start_every_30_s_and_at_the_end(
    two: list[RunProgress], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, stream = [1000.0], io.StringIO()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    display = Display(two, done_before=2, concurrency=1, stream=stream)
    for state, step, seconds in [
        ("QUEUED", 0, 0),
        ("RUNNING", 0, 1),
        ("RUNNING", 2, 29),
        ("RUNNING", 3, 31),
        ("RUNNING", 4, 59),
        ("RUNNING", 6, 61),
        ("COMPLETED", 8, 62),
    ]:
        now[0] = 1000.0 + seconds
        write_status(two[0].run_dir, state, step=step, steps=8)
        display.update()
        display.update()
    assert [line[:23] for line in stream.getvalue().splitlines()] == [
        "[2/4] running   level a",
        "[2/4] running   level a",
        "[2/4] running   level a",
        "[3/4] completed level a",
    ]
    assert "step 3/8" in stream.getvalue().splitlines()[1] and "step 6/8" in stream.getvalue().splitlines()[2]


def test_a_failure_says_why_in_full_below_its_line(two: list[RunProgress]) -> None:
    assert lines_of(two, ("RUNNING", 0), ("FAILED", 3))[-1] == "    ValueError: no"
    write_status(two[1].run_dir, "FAILED", step=1, steps=8, message="why " * 60)
    display = Display(two[1:], done_before=0, concurrency=1, stream=(stream := io.StringIO()))
    display.update()
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100 and " ".join(" ".join(lines[1:]).split()) == ("why " * 60).strip()


def test_a_long_level_gives_way_and_its_end_stays(tmp_path: Path) -> None:
    run = RunProgress(run_dir=tmp_path, level="regularizer.entropy_bonus.coef 0.003, " * 6, seed="17")
    write_status(tmp_path, "RUNNING", step=1, steps=8)
    record(tmp_path, 0, 0.5, 2.0)
    display = Display([run], done_before=0, concurrency=1, stream=(stream := io.StringIO()))
    display.update()
    write_status(tmp_path, "COMPLETED", step=8, steps=8)
    display.update()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and max(map(len, lines)) <= 100
    assert all("seed 17" in line for line in lines)


def test_what_a_run_does_before_its_first_step_and_for_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, run = [1000.0], RunProgress(run_dir=tmp_path, level="x")
    monkeypatch.setattr("time.time", lambda: now[0])
    write_status(tmp_path, "QUEUED", steps=8, startup=(("importing", 1000.0),))
    now[0] = 1009.0
    run.refresh()
    assert run.starting == ("importing", 9.0)
    phases = (("importing", 1000.0), ("checking", 1009.0), ("starting engine", 1009.25), ("first step", 1027.0))
    write_status(tmp_path, "RUNNING", steps=8, startup=phases)
    now[0] = 1028.0
    run.refresh()
    assert run.starting == ("first step", 1.0)
    (tmp_path / "timings.jsonl").write_text(
        json.dumps({"step": 0, "time": 1031.0, "metrics": {"time/step_s": 4}}) + "\n"
    )
    run.refresh()
    # 9 + 0.25 + 17.75 + 4 = 31
    assert run.starting is None
    assert run.startup_text() == "31 s to step 1: starting engine 18 s, importing 9 s, first step 4 s"


def test_the_last_line_says_accuracy_and_entropy_before_and_after(tmp_path: Path) -> None:
    run = RunProgress(run_dir=tmp_path, level="x")
    steps = [
        {"policy/entropy": 0.9, "eval/heldout/avg_at_16": 0.04, "eval/heldout/avg_at_16_se": 0.01},
        {"policy/entropy": 0.6, "rollout/reward": 0.2},
        {"eval/heldout/avg_at_16": 0.18},
    ]
    lines = [json.dumps({"step": step, "metrics": metrics}) for step, metrics in enumerate(steps)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write_status(tmp_path, "COMPLETED", step=2, steps=2)
    display = Display([run], done_before=0, concurrency=1, stream=(stream := io.StringIO()))
    display.update()
    expected = "[1/1] completed x  heldout avg@16 0.040 to 0.180  entropy 0.900 to 0.600  in 0 s\n"
    assert stream.getvalue() == expected


def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value() -> None:
    assert sparkline([0.0, 7.0, 3.5], 20) == "▁█▅"  # 3.5 / 7 of 7 steps rounds to the fifth block
    assert sparkline([1.0, 3.0, 5.0, 7.0], 2) == "▁█"  # means 2 and 6
    assert sparkline([2.0, 2.0, 2.0], 20) == "▅▅▅"
    assert sparkline([0.0, 1.0], 20, ascii_only=True) == "_^"
    assert sparkline([1.0], 20) == ""


def test_a_terminal_gets_a_table_that_is_redrawn(two: list[RunProgress], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    display = Display(two, done_before=0, concurrency=1, stream=stream)
    write_status(two[0].run_dir, "RUNNING", step=4, steps=8)
    record(two[0].run_dir, 0, 0.5, 2.0)
    display.update()
    write_status(two[0].run_dir, "COMPLETED", step=8, steps=8)
    display.update()
    display.close()
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n")
    lines = [line.rstrip() for line in text.splitlines()]
    assert "[0/2]  1 waiting  left 8 s" in lines
    assert any(line.split() == ["level", "a", "4/8", "0.500", "0.250", "8", "s"] for line in lines)
    assert "[1/2] completed level a" in text
    assert "\x1b[2K" in stream.getvalue() and max(map(len, lines)) <= 80
