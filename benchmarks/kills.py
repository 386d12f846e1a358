"""Random kills of a sweep's processes, and whether anything was lost: called by ``python -m benchmarks.resilience``.

A sweep of small cells is started again and again while trainer, launcher and mirror are killed with signal 9: at
start-up, in mid-step, while a checkpoint is written, at the end. When all its cells are complete, records, weights and
MLflow have to equal those of a sweep that nothing happened to, byte for byte; then the next sweep begins.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
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
TARGETS = (*ONE_OF, "all")
"""``all``: the three at once, as when a machine loses its power."""

MOMENTS = ("start-up", "step", "checkpoint", "end")
CURVES = ("metrics.jsonl", "samples.jsonl", "reliability.jsonl")
PATIENCE_S = 1800.0
START_UP_S = 25.0
"""The first kills fall within so many seconds of a launcher's start: its own, and that of its trainer."""

TRIES = 10
"""Starts within which an undisturbed launcher has to bring a sweep to its end."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One output folder and whoever is at work on it."""

    output: Path
    launcher: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0
    log: list[str] = field(default_factory=list)

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
            _kill(self.pids(target))
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


def _commands() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _runs(words: list[str], module: str, output: Path) -> bool:
    return any(pair == ("-m", module) for pair in itertools.pairwise(words)) and any(
        word.startswith(f"{output}/runs/") for word in words
    )


def wait_for(sweep: Sweep, moment: str, rng: random.Random) -> bool:
    """Wait for the moment; False when the sweep is complete before it comes."""
    end = time.monotonic() + PATIENCE_S
    if moment == "start-up":
        sleep_until(sweep.started + rng.uniform(0.0, START_UP_S))
        return not sweep.complete
    before = sweep.lines()
    while time.monotonic() < end and not sweep.complete:
        if moment == "step" and sweep.lines() > before:
            time.sleep(rng.uniform(0.0, 0.3))
            return True
        if moment == "checkpoint" and any(sweep.output.glob("runs/*/checkpoints/.tmp-*")):
            return True
        if moment == "end" and any(_near_its_end(path) for path in sweep.output.glob("runs/*/metrics.jsonl")):
            time.sleep(rng.uniform(0.0, 0.5))
            return True
        if moment in ("step", "end") and sweep.launcher is not None and sweep.launcher.poll() is not None:
            sweep.start()
        time.sleep(0.001 if moment == "checkpoint" else 0.02)
    return False


def _near_its_end(path: Path) -> bool:
    state = json.loads(path.with_name("status.json").read_text())["state"]
    return state == "RUNNING" and path.read_bytes().count(b"\n") >= STEPS


def sleep_until(when: float) -> None:
    """Sleep until the monotonic clock says ``when``."""
    time.sleep(max(0.0, when - time.monotonic()))


def strike(sweep: Sweep, target: str, moment: str, rng: random.Random) -> str | None:
    """Kill one process at a moment; what it was, None when the sweep was complete before."""
    sweep.start()
    if not wait_for(sweep, moment, rng):
        return None
    if target == "all":
        sweep.end()
        return target
    for chosen in (target, "trainer", "launcher"):  # at start-up there may be no mirror yet
        found = sweep.pids(chosen)
        if found:
            _kill([rng.choice(found)])
            if chosen == "launcher" and sweep.launcher is not None:
                sweep.launcher.wait()
            return chosen
    return None


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


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


def drill(place: Path, number: int, seed: int) -> int:
    """Kill ``number`` times and print what was lost; the exit code is 1 if anything was."""
    rng, kills, lost, since = random.Random(seed), Counter[tuple[str, str]](), list[str](), time.monotonic()
    reference, sweeps = Sweep(output=place / "undisturbed"), list[Sweep]()
    try:
        reference.finish()
        while sum(kills.values()) < number:
            sweeps.append(Sweep(output=place / f"killed-{len(sweeps)}"))
            lost += _until_complete(reference, sweeps[-1], kills, number, rng)
    finally:
        for sweep in (reference, *sweeps):
            sweep.end()
    _report(kills, len(sweeps), lost, time.monotonic() - since)
    return 1 if lost else 0


def crowd(place: Path, number: int) -> int:
    """Start ``number`` launchers of one grid at once, and print what became of it; the exit code is 1 if anything
    differs from a grid with one launcher."""
    since = time.monotonic()
    reference, sweep = Sweep(output=place / "undisturbed"), Sweep(output=place / "crowd")
    others = [Sweep(output=sweep.output) for _ in range(number - 1)]
    try:
        reference.finish()
        for other in others:
            other.start()
        sweep.finish()
        codes = [other.launcher.wait(PATIENCE_S) for other in others if other.launcher is not None]
    finally:
        for each in (reference, sweep, *others):
            each.end()
    found = differences(reference, sweep)
    attempts = [json.loads(path.read_text())["attempt"] for path in sweep.output.glob("runs/*/status.json")]
    found += [f"a cell was started {attempt} times" for attempt in attempts if attempt != 1]
    print(f"{number} launchers of {CELLS} cells in {(time.monotonic() - since) / 60:.0f} min; other exit codes {codes}")
    print("\n".join(found) or "every cell was trained once and is equal to the undisturbed one")
    return 1 if found else 0


def _until_complete(
    reference: Sweep, sweep: Sweep, kills: Counter[tuple[str, str]], number: int, rng: random.Random
) -> list[str]:
    """Kill within one sweep until it is complete or there were enough; what it then has otherwise."""
    while sum(kills.values()) < number:
        moment = rng.choice(MOMENTS)
        struck = strike(sweep, rng.choice(TARGETS), moment, rng)
        if struck is None:
            break
        kills[moment, struck] += 1
        print(f"{sum(kills.values()):>4}  {struck:<9} at {moment:<11} {' '.join(sorted(sweep.states()))}", flush=True)
    sweep.finish()
    found = differences(reference, sweep)
    said = "; ".join(found) or "equal to the undisturbed one"
    print(f"      {sweep.output.name}: {sweep.starts} starts, {said}", flush=True)
    return [f"{sweep.output}: {name}" for name in found]


def _report(kills: Counter[tuple[str, str]], sweeps: int, lost: list[str], seconds: float) -> None:
    print(f"\n{sum(kills.values())} kills of {sweeps} sweeps of {CELLS} cells in {seconds / 60:.0f} min")
    print(f"  {'':<12}" + "".join(f"{target:>10}" for target in TARGETS))
    for moment in MOMENTS:
        print(f"  {moment:<12}" + "".join(f"{kills[moment, target]:>10}" for target in TARGETS))
    print(f"lost: {len(lost)}" if lost else "nothing was lost")
    for line in lost:
        print(f"  {line}")


def arguments_of(parser: Any) -> None:
    """What the command line may say of this drill."""
    parser.add_argument("--kills", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--launchers", type=int, help="start so many launchers of one grid at once instead of killing")
    parser.add_argument("--seed", type=int, default=0, help="of targets and moments (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for the sweeps; without it they are removed at the end")
