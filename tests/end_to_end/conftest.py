"""A trainer that can be made to fail at any moment, and an undisturbed run to compare with; each started once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import write_run

from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class FaultRunner:
    """Runs folders in forks of one process that has imported everything (see ``fault_runner.py``)."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._number = logs, 0
        command = [sys.executable, str(Path(__file__).with_name("fault_runner.py"))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
        )

    def __call__(
        self,
        *folders: RunFolder,
        faults: tuple[tuple[str, int, str], ...] = (),
        kill_after_s: float | None = None,
    ) -> int:
        """Exit code of ``python -m trainer FOLDERS`` with ``faults`` (where, at which call, what).

        ``kill_after_s`` is a kill -9 by the clock, wherever the process then is.
        """
        assert self._process.stdin and self._process.stdout
        self._number += 1
        job: dict[str, Any] = {
            "folders": [str(folder.path) for folder in folders],
            "log": str(self.log),
            "faults": [{"at": at, "call": call, "do": do} for at, call, do in faults],
            "kill_after_s": kill_after_s,
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    @property
    def log(self) -> Path:
        """Where the last run wrote its output."""
        return self._logs / f"{self._number}.log"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultRunner]:
    runner = FaultRunner(tmp_path_factory.mktemp("logs"))
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def undisturbed(trainer: FaultRunner, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of the small default configuration that nothing happened to."""
    folder = write_run(tmp_path_factory.mktemp("undisturbed"))
    assert trainer(folder) == 0, trainer.log.read_text()
    return folder
