"""Lets the trainer check the configurations of a sweep, in one process, before anything is queued.

It is a process of its own (``python -m trainer --check``) because the check imports torch, which ``sweeps`` must not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.grid.cells import Cell
from sweeps.queues.base import Queue
from trainer.contract.identity import group_signature
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError, require
from trainer.contract.status import ExitCode


@dataclass(slots=True)
class Check:
    """A running check."""

    process: subprocess.Popen[str]
    request: str

    def result(self) -> list[str]:
        """Wait for the check; returns its warnings. Raises :class:`ConfigError` with a line per problem."""
        out, err = self.process.communicate(self.request)
        lines = list(dict.fromkeys(_without_cell(line) for line in out.splitlines() if line.strip()))
        warnings = [line.removeprefix("warning:").strip() for line in lines if line.startswith("warning:")]
        problems = [line for line in lines if not line.startswith("warning:")]
        if self.process.returncode == ExitCode.BAD_CONFIGURATION and problems:
            raise ConfigError("\n".join(problems))
        if self.process.returncode != 0:
            last = err.strip().splitlines()[-1] if err.strip() else f"exit code {self.process.returncode}"
            raise ConfigError(f"the trainer could not check the configuration: {last}")
        return warnings


def start_check(cells: Sequence[Cell], trainer: Sequence[str], *, on_this_machine: bool = True) -> Check:
    """Start checking one cell of every level; another seed cannot make a configuration invalid.

    ``on_this_machine``: the jobs run here, so that files and devices that they need have to be here too.
    """
    levels = {group_signature(cell.config): cell for cell in cells}
    lines = [
        json.dumps({"config": cell.config, "where": cell.level.label, "here": on_this_machine})
        for cell in levels.values()
    ]
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, *trainer, "--check"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": search_path},
        text=True,
    )
    return Check(process=process, request="\n".join(lines) + "\n")


def require_gpus(config: Mapping[str, Any], queue: Queue) -> None:
    """Raise :class:`ConfigError` for a run on more GPUs than a job has, or on one where jobs have none."""
    hardware = config["hardware"]
    if hardware["device"] == "cpu":
        return
    queue.require_room_for(int(hardware["processes"]))
    require(
        hardware["device"] != "cuda" or queue.num_gpus > 0,
        "hardware.device",
        "cuda",
        "jobs of this launcher have no GPU; use hardware.device=auto, or on Slurm launcher.gpus=1",
    )


def _without_cell(line: str) -> str:
    """A warning without the level it was found in, so that one which concerns all levels is printed once."""
    return line.rpartition(" (in ")[0] or line if line.startswith("warning:") else line
