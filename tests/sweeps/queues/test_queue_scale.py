"""The benchmark of the queue's growth still runs; its figures are in ``benchmarks/QUEUE.md``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from trainer.contract.paths import ROOT


def test_the_simulation_goes_through_every_phase(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "queue_scale.py"), "--cells", "20", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(output.read_text())["results"]
    assert result["summary"].startswith("2 running, 2 failed, 2 queued, 2 preempted, 12 completed")
    assert len(result["seconds"]) == 9 and all(seconds >= 0 for seconds in result["seconds"].values())
    assert done.stdout.count("ms a cell") == 9
