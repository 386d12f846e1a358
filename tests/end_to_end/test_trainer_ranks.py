"""Two real processes, started as the queue starts them, compute what one process computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import metrics, write_run

from sweeps.queues.worker import rank_command
from trainer.storage.record import RunFolder

RANK_TOLERANCE = 1e-4
"""The gradient is a sum of two parts instead of one: rounding only, carried through a few updates."""

SETTINGS = {
    "steps": 3,
    "optim.updates_per_rollout": 2,
    "regularizer.bonus._target_": ("trainer.objective.regularizers.entropy_bonus.EntropyBonus"),
}


def train(folder: RunFolder, processes: int) -> None:
    launch = rank_command(processes, gpus=False)
    command = [sys.executable, *launch, "-m", "trainer", str(folder.path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", SETTINGS)
    both = write_run(tmp_path / "both", SETTINGS | {"hardware.processes": 2})
    train(alone, 1)
    train(both, 2)
    first, second = metrics(alone), metrics(both)
    assert len(first) == len(second) == 4
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            # Correlations jump where rounding turns two near ties around, or moves one token far out.
            tolerance = 0.05 if "corr_" in key else RANK_TOLERANCE
            assert two[key] == pytest.approx(value, rel=tolerance, abs=tolerance), key
    status = both.read_status()
    assert status is not None and status.state == "COMPLETED"


def test_a_missing_rank_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", SETTINGS | {"hardware.processes": 2})
    done = subprocess.run(
        [sys.executable, "-m", "trainer", str(folder.path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "hardware.processes=2 cannot be used: 1 rank(s) were started" in done.stderr
