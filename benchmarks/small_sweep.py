"""A sweep of three small cells, whose processes can be ended at any moment, and what two such sweeps have otherwise.

Shared by the drills of ``python -m benchmarks.resilience``. It must not know what is done to a sweep.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import ROOT

CELLS = 3
STEPS = 4
GRID = (
    "-m",
    f"seed=range({CELLS})",
    f"steps={STEPS}",
    "study=smoke",
    "study.name=kills",
    "engine=transformers",
    "accounting=none",
    "rollout.prompts_per_step=2",
    "rollout.max_tokens=24",
    "evaluation.prompts=2",
    "evaluation.samples=2",
    "evaluation.ks=[1,2]",
    "checkpoint.every=1",
    "hardware.device=cpu",
    "hardware.num_threads=1",
    "tracking.flush_every_s=0.2",
)
"""A sweep whose cells take seconds."""

ONE_OF = ("trainer", "launcher", "mirror")
"""The processes of a sweep, by what they are."""
CURVES = ("metrics.jsonl", "samples.jsonl", "reliability.jsonl")
PATIENCE_S = 1800.0
TRIES = 10
"""Starts within which an undisturbed launcher has to bring a sweep to its end."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One output folder and whoever is at work on it."""

    output: Path
    launcher: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0

    def start(self) -> None:
        """Start the same command (again), unless its launcher runs."""
        if self.launcher is not None and self.launcher.poll() is None:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        self.starts, self.started = self.starts + 1, time.monotonic()
        with (self.output / "launchers.log").open("ab") as log:
            self.launcher = subprocess.Popen(
                [sys.executable, str(ROOT / "sweep.py"), *GRID, f"output={self.output}"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"},
            )

    def pids(self, target: str) -> list[int]:
        """Processes of this sweep that are a ``target``."""
        if target == "launcher":
            return [self.launcher.pid] if self.launcher is not None and self.launcher.poll() is None else []
        module = {"trainer": "trainer", "mirror": "trainer.tracking.mirror"}[target]
        return [pid for pid, words in _commands() if _runs(words, module, self.output)]

    def states(self) -> list[str]:
        """The states of the cells that have one."""
        found = []
        for path in self.output.glob("runs/*/status.json"):
            found.append(json.loads(path.read_text())["state"])
        return found

    @property
    def complete(self) -> bool:
        """Whether every cell has come to its end."""
        return self.states() == ["COMPLETED"] * CELLS

    def lines(self) -> int:
        """Steps recorded in all cells."""
        return sum(path.read_bytes().count(b"\n") for path in self.output.glob("runs/*/metrics.jsonl"))

    def end(self) -> None:
        """End whatever is still at work."""
        for target in ONE_OF:
            kill(self.pids(target))
        if self.launcher is not None:
            self.launcher.wait()

    def finish(self) -> None:
        """Start the command until it leaves with every cell complete."""
        for _ in range(TRIES):
            self.start()
            assert self.launcher is not None
            self.launcher.wait(PATIENCE_S)
            if self.complete:
                break
        subprocess.run(
            [sys.executable, "-m", "sweeps", "sync", "kills", "--output", str(self.output)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )


def kill(pids: Sequence[int]) -> None:
    """Send signal 9 to processes, some of which may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _commands() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _runs(words: list[str], module: str, output: Path) -> bool:
    return any(pair == ("-m", module) for pair in itertools.pairwise(words)) and any(
        word.startswith(f"{output}/runs/") for word in words
    )


def contents(output: Path) -> dict[str, bytes]:
    """Everything of a sweep that may not depend on what happened to it, by cell and file."""
    found = {}
    for run in sorted((output / "runs").iterdir()):
        for name in CURVES:
            if (run / name).exists():
                found[f"{run.name}/{name}"] = (run / name).read_bytes()
        last = max((run / "checkpoints").glob("step-*"))
        files = json.loads((last / "manifest.json").read_text())["files"]
        for name, entry in files.items():
            found[f"{run.name}/{last.name}/{name}"] = entry["sha256"].encode()
    return found


def copied(output: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point that MLflow holds of a cell, by cell and metric; measured times left out."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, list[tuple[int, float]]] = {}
    for run in client.search_runs(experiments, "tags.kind = 'cell'"):
        assert run.info.status == "FINISHED", f"{run.info.run_id} is {run.info.status} in MLflow"
        for name in run.data.metrics:
            if not name.startswith(("time/", "throughput/", "memory/")):
                points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
                found[f"{run.data.tags['signature']}/{name}"] = sorted(points)
    return found


def differences(reference: Sweep, sweep: Sweep) -> list[str]:
    """What a sweep has otherwise than the undisturbed one."""
    if not sweep.complete:
        return [f"not complete after {TRIES} starts: {sweep.states()}"]
    wanted, there = contents(reference.output), contents(sweep.output)
    found = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
    points, seen = copied(reference.output), copied(sweep.output)
    return found + [f"MLflow {name}" for name in {**points, **seen} if repr(points.get(name)) != repr(seen.get(name))]
