"""What a second invocation does with what the first one left."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sweeps.plan.reconcile import Action, reconcile, unknown_liveness
from trainer.contract.liveness import lock
from trainer.contract.settings import ConfigError
from trainer.contract.status import write_status

TABLE = {
    # state: (without retry, failed, lost, all)
    None: (Action.START,) * 4,
    "PLANNED": (Action.START,) * 4,
    "COMPLETED": (Action.KEEP,) * 4,
    "FAILED": (Action.LEAVE, Action.RESUME, Action.LEAVE, Action.RESUME),
    "PRUNED": (Action.LEAVE, Action.LEAVE, Action.LEAVE, Action.RESUME),
    "CANCELLED": (Action.RESUME,) * 4,
    "PREEMPTED": (Action.RESUME,) * 4,
    "LOST": (Action.RESUME,) * 4,
    "RUNNING": (Action.RESUME,) * 4,  # of a process that has gone
}


@pytest.mark.parametrize("state", list(TABLE))
def test_each_state_has_its_rule(tmp_path: Path, state: str | None) -> None:
    if state is not None:
        write_status(tmp_path, state, pid=2**22 + 1, host=socket.gethostname())
    found = tuple(reconcile([tmp_path], retry)[0].action for retry in (None, "failed", "lost", "all"))
    assert found == TABLE[state]


def test_taking_a_launchers_place_touches_nothing_that_ended(tmp_path: Path) -> None:
    gone = {"pid": 2**22 + 1, "host": socket.gethostname()}
    expected = {"FAILED": Action.LEAVE, "LOST": Action.LEAVE, "CANCELLED": Action.LEAVE, "PRUNED": Action.LEAVE}
    expected |= {"QUEUED": Action.START, "PLANNED": Action.START, "PREEMPTED": Action.RESUME, "COMPLETED": Action.KEEP}
    for state, action in expected.items():
        write_status(tmp_path, state, **gone)
        assert reconcile([tmp_path], only_waiting=True)[0].action is action, state


def test_no_wish_takes_a_run_from_a_living_job(tmp_path: Path) -> None:
    write_status(tmp_path, "RUNNING", host=socket.gethostname())
    held = lock(tmp_path)
    assert held is not None
    assert {reconcile([tmp_path], retry)[0].action for retry in ("lost", "all")} == {Action.JOIN}
    held.close()


def test_a_living_run_is_joined(tmp_path: Path) -> None:
    write_status(tmp_path, "RUNNING", host=socket.gethostname())
    held = lock(tmp_path)
    assert held is not None
    assert reconcile([tmp_path])[0].action is Action.JOIN
    assert not reconcile([tmp_path])[0].to_queue
    held.close()


def test_a_run_of_which_nothing_is_known_is_taken_over_only_on_demand(tmp_path: Path) -> None:
    write_status(tmp_path, "RUNNING", pid=1, host="node7", job="slurm:7@other")
    found = reconcile([tmp_path])
    assert found[0].action is Action.JOIN and found[0].unknown_liveness
    sentence = unknown_liveness(found)
    assert sentence is not None and "RUNNING on node7 by slurm:7@other" in sentence and "retry=lost" in sentence
    found = reconcile([tmp_path], "lost")
    assert found[0].action is Action.RESUME and unknown_liveness(found) is None


def test_an_unknown_wish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="retry='some' cannot be used"):
        reconcile([tmp_path], "some")
