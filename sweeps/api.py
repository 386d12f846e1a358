"""``sweeps.run``: one run from Python, as ``python sweep.py`` would make it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainer.contract.paths import ROOT


def run(*overrides: str) -> Path:
    """Train one configuration, or do nothing where that has been done, and return the folder of the run.

    ``overrides`` are the words of the command line: ``run("steps=20", "method=small/clip_cov", "seed=3")``. The run is
    a process of its own, so nothing of it stays in this one. Raises ConfigError, a ValueError, for a configuration that
    cannot be run, before anything starts, and RuntimeError where the run did not complete.
    """
    from sweeps.compose.compose import Composed, compose
    from sweeps.compose.explain import explained
    from sweeps.grid.cells import cells, resolve_all

    with explained(overrides):
        composed = Composed(config=compose(overrides), overrides=overrides)
        cell = cells(resolve_all([composed]))[0]
    command = [sys.executable, str(ROOT / "sweep.py"), *overrides]
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise RuntimeError(f"the run ended with exit code {code}; what went wrong is printed above")
    return Path(cell.config["output"]) / "runs" / cell.signature
