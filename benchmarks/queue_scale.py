"""Time and memory of plan, reconcile and status against the number of cells, with simulated jobs.

``python benchmarks/queue_scale.py [--cells 100 1000 10000] [--output FILE]``. Composing, freezing, run folders, the
table and the estimate are the real ones; only training is made up: each run folder gets the files that a run would have
left by then, in all states, and a stand-in for ``squeue`` answers for the living jobs. Each size is a process of its
own, so that its peak memory is its own. Seconds are processor seconds of that process, which other work on the machine
does not lengthen. Prints a table; writes every figure as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sweeps.after.manage import load_sweep
from sweeps.compose.compose import CONF, Composed, compose_batch, enable_plugins
from sweeps.grid.cells import Cell, cells, resolve_all
from sweeps.grid.sweep import Sweep, load_document, save_document
from sweeps.plan.estimate import estimate
from sweeps.plan.plan import plan_text
from sweeps.plan.reconcile import reconcile
from sweeps.plan.register import SweepRef, register
from sweeps.queues.liveness import record_dead_runs
from sweeps.queues.slurm import SlurmQueue
from sweeps.runs.progress import RunProgress
from sweeps.terminal.status import status_lines
from trainer.contract.status import write_status

STEPS = 40
SEEDS = 5
MIX = ("COMPLETED",) * 6 + ("RUNNING", "QUEUED", "FAILED", "PREEMPTED")
"""States of the simulated runs, in turn."""

PHASES = {
    "compose": "compose and sign",
    "plan": "reconcile and plan, nothing run yet",
    "register": "freeze run folders",
    "reconcile": "reconcile, all states",
    "estimate": "estimate and plan, all states",
    "status": "status, first reading",
    "status_again": "status, next reading",
    "record_dead_runs": "look for dead runs",
    "reopen": "read the sweep back from its folders",
}


def composed(number: int, output: Path) -> Iterator[Composed]:
    """What ``sweep.py -m optim.lr=... seed=range(5) launcher=slurm`` hands to the launcher."""
    enable_plugins()
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    fixed = ["launcher=slurm", "tracking=none", f"output='{output}'", f"steps={STEPS}"]
    batch = [[f"optim.lr={1e-6 * (1 + n // SEEDS):.6g}", f"seed={n % SEEDS}", *fixed] for n in range(number)]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3", job_name="sweep"):
        running = GlobalHydra.instance().hydra
        assert running is not None
        master = running.compose_config("config", [], run_mode=RunMode.MULTIRUN)
        yield from compose_batch(running.config_loader, master, batch)


def simulate(run_dir: Path, number: int) -> tuple[str, str] | None:
    """Leave what a run would have left by now; its job and the state of that, where Slurm still knows it."""
    state = MIX[number % len(MIX)]
    done = {"COMPLETED": STEPS, "QUEUED": 0}.get(state, STEPS // 2)
    metrics, timings = [], []
    for step in range(done):
        values = {"rollout/reward": 0.5, "policy/entropy": 0.3} | {f"engine/logprob_gap_{n}": 0.1 for n in range(40)}
        metrics.append(json.dumps({"step": step, "metrics": values}))
        timings.append(json.dumps({"step": step, "time": 1e9 + step, "metrics": {"time/step_s": 1.0}}))
    if done:
        (run_dir / "metrics.jsonl").write_text("\n".join(metrics) + "\n")
        (run_dir / "timings.jsonl").write_text("\n".join(timings) + "\n")
        (run_dir / "attempts" / "1").mkdir(parents=True)
        (run_dir / "attempts" / "1" / "job").write_text(f"slurm:7_{number}@simulated")
    message = "RuntimeError: the loss is not finite" if state == "FAILED" else None
    write_status(
        run_dir, state, step=done, steps=STEPS, host="node7", job=f"slurm:7_{number}@simulated", message=message
    )
    word = {"RUNNING": "RUNNING", "QUEUED": "PENDING", "PREEMPTED": "PENDING"}.get(state)
    return (f"7_{number}", word) if word else None


def stand_in(folder: Path) -> Path:
    """A ``squeue`` that prints a file; the file."""
    folder.mkdir()
    answer = folder / "answer"
    for name, body in {"squeue": f"cat {answer}", "scontrol": "echo 'ClusterName = simulated'"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    answer.write_text("")
    return answer


def measure(number: int, folder: Path) -> dict[str, Any]:
    """Seconds by phase and the peak memory of a sweep of ``number`` cells."""
    answer, seconds = stand_in(folder / "bin"), dict[str, float]()
    baseline_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def timed(phase: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        seconds[phase] = time.process_time() - start
        return result

    made: list[Cell] = timed("compose", lambda: cells(resolve_all(composed(number, folder / "outputs"))))
    sweep = Sweep(name="scale", command="simulated", output=folder / "outputs", cells=tuple(made))
    run_dirs, queue = [sweep.run_dir(cell) for cell in made], SlurmQueue()

    def plan() -> str:
        decisions = reconcile(run_dirs)
        return plan_text(sweep, decisions, queue, estimate(sweep, decisions, queue))

    timed("plan", plan)
    sweep_ref = SweepRef(sweep=sweep, uri=None, parent_run_id=None, facts={})
    timed("register", lambda: register(sweep_ref, made))
    save_document(sweep.folder, sweep.document())
    jobs = [job for n, run_dir in enumerate(run_dirs) if (job := simulate(run_dir, n))]
    answer.write_text("".join(f"{name} {state}\n" for name, state in jobs))
    timed("reconcile", lambda: reconcile(run_dirs))
    timed("estimate", plan)
    runs = [RunProgress(run_dir=sweep.run_dir(cell), level=cell.level.label, seed=str(cell.seed)) for cell in made]

    def status() -> list[str]:
        for run in runs:
            run.refresh()
        return status_lines(runs, concurrency=queue.concurrency)

    lines = timed("status", status)
    timed("status_again", status)
    assert timed("record_dead_runs", lambda: record_dead_runs(run_dirs)) == []
    timed("reopen", lambda: load_sweep(sweep.output, load_document(sweep.output, "scale")))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cells": number,
        "seconds": seconds,
        "peak_mib": peak_mib,
        "baseline_mib": baseline_mib,
        "summary": lines[-1],
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Milliseconds per cell by phase, and memory, as Markdown."""
    rows = ["| phase | " + " | ".join(f"{result['cells']} cells" for result in results) + " |"]
    rows.append("|---|" + "---|" * len(results))
    for phase, words in PHASES.items():
        costs = [f"{1000 * result['seconds'][phase] / result['cells']:.3f}" for result in results]
        rows.append(f"| {words}, ms a cell | " + " | ".join(costs) + " |")
    total = [sum(result["seconds"].values()) for result in results]
    rows.append("| all of it, s | " + " | ".join(f"{seconds:.1f}" for seconds in total) + " |")
    rows.append("| peak memory, MiB | " + " | ".join(f"{result['peak_mib']:.0f}" for result in results) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure every size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000, 3000, 10000])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "queue_scale.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            result = measure(options.one, Path(folder))
        print(json.dumps(result))
        return
    results = []
    for number in options.cells:
        command = [sys.executable, __file__, "--one", str(number)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(done.stdout))
    options.output.parent.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}
    options.output.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
