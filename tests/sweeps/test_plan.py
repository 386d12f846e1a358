"""The estimate and the words of a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.cells import Cell
from sweeps.plan import aligned, duration, estimate_s
from sweeps.reconcile import reconcile
from sweeps.runs import write_run, write_status
from sweeps.study import Study


def earlier(output: Path, cell: Cell, seconds: list[float]) -> None:
    run_dir = output / "runs" / cell.signature
    write_run(run_dir, cell.config)
    write_status(run_dir, "COMPLETED", step=len(seconds), steps=len(seconds))
    lines = [
        json.dumps({"step": step, "time": 0, "metrics": {"time/step_s": value}}) for step, value in enumerate(seconds)
    ]
    lines.append(json.dumps({"step": len(seconds), "time": 0, "metrics": {"time/eval_s": 4.0}}))
    (run_dir / "timings.jsonl").write_text("\n".join([*lines, '{"torn']))


def estimate(output: Path, cells: list[Cell], concurrency: int = 1) -> float | None:
    study = Study(name="s", command="c", output=output, cells=tuple(cells))
    return estimate_s(study, reconcile([study.run_dir(cell) for cell in cells]), concurrency)


def test_the_estimate_comes_from_runs_of_the_same_cost(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> None:
    known, slow, *todo = make_cells(
        ["seed=9"], ["seed=9", "rollout.group_size=64"], *[[f"seed={seed}", "steps=10"] for seed in (1, 2)]
    )
    assert estimate(tmp_path, todo) is None
    earlier(tmp_path, known, [1.0, 2.0, 3.0, 2.0])  # and 4 s of evaluation: 12 s over 4 steps, 3 s a step
    earlier(tmp_path, slow, [100.0])
    assert estimate(tmp_path, todo) == pytest.approx(2 * 10 * 3.0)
    assert estimate(tmp_path, todo, concurrency=2) == pytest.approx(30.0)
    assert estimate(tmp_path, todo[:1], concurrency=8) == pytest.approx(30.0), "one cell cannot use two slots"


def test_steps_that_are_done_cost_nothing(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> None:
    known, todo = make_cells(["seed=9"], ["seed=1", "steps=10"])
    earlier(tmp_path, known, [2.0, 2.0])  # (2 + 2 + 4) / 2 = 4 s a step
    write_status(
        tmp_path / "runs" / todo.signature if (tmp_path / "runs" / todo.signature).mkdir() is None else tmp_path,
        "PREEMPTED",
        step=7,
    )
    assert estimate(tmp_path, [todo]) == pytest.approx(3 * 4.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (200_000, "2.3 d")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_as_wide_as_their_widest_entry() -> None:
    assert aligned([("a", "b"), ("long", "")]) == ["a     b", "long"]
