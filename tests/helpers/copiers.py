"""Run folders with a record, what MLflow should then hold, and copiers to carry it there.

Called by the tests of the MLflow copy. It must not train anything, and it reads MLflow only to compare.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow.tracking  # noqa: F401  (two threads that import it at the same time both fail)

from trainer.contract.records import read_records
from trainer.storage.record import RunFolder
from trainer.tracking.mirror import follow

History = dict[str, list[tuple[int, int, float]]]


def run_folder(path: Path, config: Mapping[str, Any]) -> RunFolder:
    """A run folder with this frozen configuration that accepts any metric."""
    path.mkdir(parents=True)
    folder = RunFolder(path, check=lambda names: None)
    folder.config_file.write_text(json.dumps(config))
    return folder


def record(folder: RunFolder, steps: Iterable[int], clock: float = 1000.0) -> None:
    """Two metrics, a timing and a sample for each of ``steps``."""
    for step in steps:
        metrics = {"policy/entropy": 1 / (step + 3), "policy/ratio_max": 1.5}
        folder.append(step, metrics, {"time/step_s": clock / 7 + step}, time=clock + step / 8)
        folder.append_samples([{"step": step, "prompt": "1,2=3:", "response": "<script>é\n", "reward": 1.0}])


def recorded(folder: RunFolder) -> History:
    """Every point of the record, with its time in milliseconds: what MLflow should hold."""
    timings, metrics = read_records(folder.timings)[0], read_records(folder.metrics)[0]
    times = {line["step"]: int(1000 * line["time"]) for line in timings}
    found: History = {}
    for line in [*timings, *metrics]:
        for name, value in line["metrics"].items():
            found.setdefault(name, []).append((line["step"], times[line["step"]], value))
    return {name: sorted(points) for name, points in found.items()}


def copied(client: Any, run_id: str) -> History:
    """Every point that MLflow holds of a run."""
    return {
        name: sorted((point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, name))
        for name in client.get_run(run_id).data.metrics
    }


def follow_to_the_end(run_dir: str, started: Callable[[], object]) -> None:
    """A copier whose run has ended already, in a process of its own; leaves with what :func:`follow` returns."""
    source, sink = os.pipe()
    os.close(sink)
    started()
    raise SystemExit(follow(run_dir, source))


class Copier:
    """:func:`trainer.tracking.mirror.follow` in a thread: the copier's own code at the price of no process."""

    def __init__(self, folder: RunFolder) -> None:
        self._source, self._sink = os.pipe()
        self.code: int | None = None
        self._thread = Thread(target=self._follow, args=(str(folder.path),), daemon=True)
        self._thread.start()

    def _follow(self, run_dir: str) -> None:
        self.code = follow(run_dir, self._source)

    def tell(self, durable: int) -> None:
        """Steps up to ``durable`` are not computed again."""
        os.write(self._sink, b"%d\n" % durable)

    def close(self) -> int | None:
        """The run has ended; what the copier's exit code would be."""
        os.close(self._sink)
        self._thread.join(120)
        os.close(self._source)
        return self.code
