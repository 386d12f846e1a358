"""Runs of this project for the benchmarks, through its public commands only: ``sweep.py`` composes, ``trainer``
runs.

What a run took is read from the ``timings.jsonl`` that every run leaves behind.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import NUM_THREADS, ROOT, ChildFailed, environment
from trainer.contract import run_yaml
from trainer.contract.identity import SCHEMA


def make_run(folder: Path, *overrides: str) -> Path:
    """A run folder with the resolved configuration of ``sweep.py OVERRIDES``."""
    where = ("hardware.device=cpu", f"hardware.num_threads={NUM_THREADS}")
    command = [sys.executable, "sweep.py", "--cfg", "job", "--resolve", *where]
    composed = subprocess.run([*command, *overrides], cwd=ROOT, capture_output=True, text=True, check=False)
    if composed.returncode:
        raise ChildFailed(composed.stderr[-400:])
    config = yaml.safe_load(composed.stdout)
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(run_yaml.dumps({"schema": SCHEMA} | config))
    return folder


def train(*folders: Path) -> None:
    """``python -m trainer`` on these run folders, in one process."""
    command = [sys.executable, "-m", "trainer", *map(str, folders)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment(), check=False)
    if ran.returncode:
        raise ChildFailed((ran.stderr or ran.stdout)[-800:])


def records(run: Path, name: str = "timings.jsonl") -> list[dict[str, Any]]:
    """Lines of a record of a run: ``step``, ``metrics``, and for timings the ``time`` they were written."""
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def steps(run: Path) -> list[dict[str, Any]]:
    """The lines that describe a training step; a last evaluation has none."""
    return [line for line in records(run) if "time/step_s" in line["metrics"]]


def step_seconds(run: Path) -> list[float]:
    """Wall time from the end of each step to the end of the next: all that a step costs, writing included."""
    ends = [line["time"] for line in steps(run)]
    return [end - start for start, end in itertools.pairwise(ends)]
