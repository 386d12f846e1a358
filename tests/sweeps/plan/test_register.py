"""What is written down before anything runs, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.after.results import ui_line
from sweeps.grid.cells import Cell
from sweeps.grid.sweep import Sweep
from sweeps.plan.register import SweepRef, adopt, register, run_document
from sweeps.runs.run_folder import read_run
from trainer.contract.identity import signature
from trainer.contract.liveness import lock
from trainer.contract.status import read_status, write_status


@pytest.fixture
def sweep_ref(make_cells: Callable[..., list[Cell]], tmp_path: Path) -> SweepRef:
    made = make_cells(["factor=off_policy_updates", "optim.updates_per_rollout=2", "seed=4"])
    sweep = Sweep(name="s", command="c", output=tmp_path, cells=tuple(made))
    return SweepRef(sweep=sweep, uri="sqlite:////db", parent_run_id="parent", facts={"git revision": "abc"})


def test_a_run_knows_its_place_and_origin(sweep_ref: SweepRef) -> None:
    (cell,) = sweep_ref.sweep.cells
    document = run_document(sweep_ref, cell)
    assert signature(document) == document["signature"] == cell.signature
    assert document["study"] == {"name": "s", "level": "2", "level_index": 0, "label": "2"}
    assert (document["tracking"]["uri"], document["tracking"]["parent_run_id"]) == ("sqlite:////db", "parent")
    expected = {
        "kind": "cell",
        "study": "s",
        "factor": "off_policy_updates",
        "level": "2",
        "level_index": "0",
        "seed": "4",
    }
    assert expected.items() <= document["tracking"]["tags"].items()
    assert document["provenance"]["git"] == {"revision": "abc", "dirty": False}


def test_registering_queues_and_forgets_an_old_wish_to_stop(sweep_ref: SweepRef) -> None:
    (cell,) = sweep_ref.sweep.cells
    run_dir = sweep_ref.sweep.run_dir(cell)
    run_dir.mkdir(parents=True)
    (run_dir / "STOP").touch()
    write_status(run_dir, "CANCELLED", step=3, message="cancelled")
    assert register(sweep_ref, [cell]) == [run_dir]
    status = read_status(run_dir)
    assert status is not None
    assert (status.state, status.step, status.steps, status.message) == ("QUEUED", 3, cell.config["steps"], None)
    assert not (run_dir / "STOP").exists()


def test_a_run_that_somebody_else_has_or_completed_meanwhile_is_left_alone(sweep_ref: SweepRef) -> None:
    (cell,) = sweep_ref.sweep.cells
    run_dir = sweep_ref.sweep.run_dir(cell)
    run_dir.mkdir(parents=True)
    write_status(run_dir, "RUNNING")
    held = lock(run_dir)
    assert held is not None
    register(sweep_ref, [cell])
    held.close()
    assert read_status(run_dir).state == "RUNNING"  # type: ignore[union-attr]
    write_status(run_dir, "COMPLETED")
    register(sweep_ref, [cell])
    assert read_status(run_dir).state == "COMPLETED"  # type: ignore[union-attr]
    assert not (run_dir / "run.yaml").exists()


def test_a_finished_run_of_another_store_is_sent_to_this_one_once(sweep_ref: SweepRef) -> None:
    (cell,) = sweep_ref.sweep.cells
    elsewhere = SweepRef(sweep=sweep_ref.sweep, uri=None, parent_run_id=None, facts={})
    (run_dir,) = register(elsewhere, [cell])
    write_status(run_dir, "COMPLETED")
    assert adopt(elsewhere, [cell]) == []
    assert adopt(sweep_ref, [cell]) == [run_dir]
    assert read_run(run_dir)["tracking"]["uri"] == "sqlite:////db"
    assert read_status(run_dir).state == "COMPLETED"  # type: ignore[union-attr]
    assert adopt(sweep_ref, [cell]) == []


def test_the_line_for_the_interface_starts_one_worker_on_the_right_store() -> None:
    assert ui_line("http://host:5000") == "http://host:5000"
    assert ui_line("sqlite:////a b/mlflow.db").endswith("ui --workers 1 --backend-store-uri 'sqlite:////a b/mlflow.db'")
