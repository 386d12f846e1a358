"""How long a sweep takes, from runs of like cost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Sweep
from sweeps.plan.estimate import estimate, finished_runs, makespan_s, split_into_jobs, start_up_s
from sweeps.plan.reconcile import reconcile
from sweeps.queues.local import LocalQueue
from sweeps.runs.run_folder import write_run
from trainer.contract.run_folder import next_attempt
from trainer.contract.status import write_status


def completed(output: Path, cell: Cell, seconds: list[float], job: str = "", began: float = 0.0) -> Path:
    """An earlier run: steps of ``seconds`` and an evaluation of 4 s; its job began at ``began``."""
    run_dir = output / "runs" / cell.signature
    write_run(run_dir, {**cell.config, "steps": len(seconds)})
    write_status(run_dir, "COMPLETED", step=len(seconds), steps=len(seconds))
    clock, lines = began + 10.0, []
    for step, value in enumerate(seconds):
        clock += value
        lines.append(json.dumps({"step": step, "time": clock, "metrics": {"time/step_s": value}}))
    lines.append(json.dumps({"step": len(seconds), "time": clock + 4.0, "metrics": {"time/eval_s": 4.0}}))
    (run_dir / "timings.jsonl").write_text("\n".join([*lines, '{"torn']))
    if job:
        path = next_attempt(run_dir) / "job"
        path.write_text(job)
        os.utime(path, (began, began))
    return run_dir


def seconds(output: Path, cells: list[Cell], slots: int = 1, runs_per_job: int = 1) -> tuple[float, float] | None:
    sweep = Sweep(name="s", command="c", output=output, cells=tuple(cells))
    queue = LocalQueue(slots=slots, runs_per_job=runs_per_job)
    found = estimate(sweep, reconcile([sweep.run_dir(cell) for cell in cells]), queue)
    return (found.wall_s, found.device_s) if found else None


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_the_estimate_comes_from_runs_of_the_same_cost(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> None:
    known, slow, *todo = make_cells(
        ["seed=9"], ["seed=9", "rollout.group_size=64"], *[[f"seed={seed}", "steps=10"] for seed in (1, 2, 3)]
    )
    assert seconds(tmp_path, todo) is None
    completed(tmp_path, known, [1.0, 2.0, 3.0, 2.0])  # and 4 s of evaluation: 12 s over 4 steps, 3 s a step
    completed(tmp_path, slow, [100.0])
    assert seconds(tmp_path, todo) == pytest.approx((90.0, 90.0))
    assert seconds(tmp_path, todo, slots=2) == pytest.approx((60.0, 90.0)), "three cells on two slots: two rounds"
    assert seconds(tmp_path, todo[:1], slots=8) == pytest.approx((30.0, 30.0)), "one cell cannot use two slots"


def test_one_cell_with_another_engine_does_not_leave_all_without_an_estimate(
    make_cells: Callable[..., list[Cell]], tmp_path: Path
) -> None:
    known, same, other = make_cells(["seed=9"], ["seed=1", "steps=10"], ["seed=1", "steps=10", "engine=transformers"])
    completed(tmp_path, known, [1.0, 2.0, 3.0, 2.0])  # 3 s a step
    assert seconds(tmp_path, [same, other]) == pytest.approx((60.0, 60.0))


def test_gpus_count_for_each_hour(
    make_cells: Callable[..., list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, todo = make_cells(["seed=9"], ["seed=1", "steps=10"])
    completed(tmp_path, known, [2.0, 2.0])  # (2 + 2 + 4) / 2 = 4 s a step
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    sweep = Sweep(name="s", command="c", output=tmp_path, cells=(todo,))
    found = estimate(sweep, reconcile([sweep.run_dir(todo)]), LocalQueue(gpus_per_job=4))
    assert found is not None
    assert (found.wall_s, found.device_s) == pytest.approx((40.0, 160.0))


def test_start_up_is_paid_once_a_job(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> None:
    # One job served both: it began at 0; the first run's steps began at 10 and took 2 + 2 + 4, the second's at 18.
    first, second, *todo = make_cells(*[[f"seed={seed}", "steps=2"] for seed in (8, 9, 1, 2, 3, 4)])
    completed(tmp_path, first, [2.0, 2.0], "local:a", 0.0001)
    completed(tmp_path, second, [2.0, 2.0], "local:a", 8.0001)
    assert start_up_s(finished_runs(tmp_path)) == pytest.approx(26.0 - 16.0, abs=0.01)
    assert seconds(tmp_path, todo, runs_per_job=1) == pytest.approx((4 * 18.0, 4 * 18.0), abs=0.1)
    assert seconds(tmp_path, todo, runs_per_job=2) == pytest.approx((2 * 26.0, 2 * 26.0), abs=0.1)


def test_a_run_that_was_interrupted_says_nothing_of_the_start(
    make_cells: Callable[..., list[Cell]], tmp_path: Path
) -> None:
    (known,) = make_cells(["seed=9"])
    run_dir = completed(tmp_path, known, [2.0, 2.0], "local:a", 5.0)
    (next_attempt(run_dir) / "job").write_text("local:b")
    assert start_up_s(finished_runs(tmp_path)) == 0.0


def test_steps_that_are_done_cost_nothing(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> None:
    known, todo = make_cells(["seed=9"], ["seed=1", "steps=10"])
    completed(tmp_path, known, [2.0, 2.0])  # 4 s a step
    (tmp_path / "runs" / todo.signature).mkdir()
    write_status(tmp_path / "runs" / todo.signature, "PREEMPTED", step=7)
    assert seconds(tmp_path, [todo]) == pytest.approx((12.0, 12.0))


def test_a_job_starts_as_soon_as_a_slot_is_free() -> None:
    assert makespan_s([5, 1, 1, 1], 2) == 5  # 5 on one slot, 1 + 1 + 1 on the other
    assert makespan_s([1, 1, 1, 5], 2) == 6
    assert makespan_s([], 2) == 0


def test_all_levels_of_a_seed_run_before_the_next_seed(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> None:
    made = make_cells(*[[f"optim.lr={lr}", f"seed={seed}"] for lr in ("1e-4", "2e-4") for seed in (0, 1)])
    sweep = Sweep(name="s", command="", output=tmp_path, cells=tuple(made))
    assert [[cell.seed for cell in share] for share in split_into_jobs(sweep.in_queue_order, 3)] == [[0, 0, 1], [1]]
    claims = replace(sweep, claims=({"number": 1},))  # whose order is by claim: all seeds of an arm together
    assert [cell.seed for cell in claims.in_queue_order] == [0, 1, 0, 1]
