"""The run folder: everything a run writes down about itself, as plain files. This is the truth; MLflow is a copy.

Called by the loop (append, truncate, status) and by tracking.py (read). Must not import torch or mlflow, and must never
leave a torn file behind: a failed append is cut off again, everything else is written beside and renamed.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.files import persist, room_for, write_atomic

STATES = ("PLANNED", "QUEUED", "RUNNING", "PREEMPTED", "COMPLETED", "FAILED", "CANCELLED", "PRUNED", "LOST")
"""What ``status.json`` can say of a run."""

MEASURED = ("time/", "throughput/", "memory/")
"""Prefixes of the metrics that differ from execution to execution; they go to ``timings.jsonl`` only."""


def append_records(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Add one line of standard JSON per record, all or none.

    Keys are sorted and floats are their shortest exact form, so equal records are equal bytes. What is written survives
    the death of the process; to survive that of the machine takes :meth:`RunFolder.flush`, which costs a thousand times
    more.
    """
    lines = "".join(
        json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n" for record in records
    )
    data = memoryview(lines.encode())
    with room_for(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            start = os.fstat(descriptor).st_size
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                os.ftruncate(descriptor, start)
                raise
        finally:
            os.close(descriptor)


def read_records(path: Path, *, offset: int = 0, until: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Records of whole lines from byte ``offset`` on, and the offset behind the last of them.

    Ends at a torn line and before the first record whose ``step`` is above ``until``. A file that is not there is
    empty.
    """
    records: list[dict[str, Any]] = []
    if not path.exists():
        return records, offset
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            record = _parse(line)
            if record is None or (until is not None and record["step"] > until):
                break
            records.append(record)
            offset += len(line)
    return records, offset


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _standard(value: Any) -> Any:
    """``value`` with every non-finite float as None, because standard JSON has no name for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _standard(item) for key, item in value.items()}
    return [_standard(item) for item in value] if isinstance(value, (list, tuple)) else value


def _metrics_record(step: int, metrics: Mapping[str, float]) -> dict[str, object]:
    """``{"step", "metrics"}``; a non-finite value is null there and spelt out under ``nonfinite``."""
    values = {name: float(value) for name, value in metrics.items()}
    nonfinite = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
    record: dict[str, object] = {"step": step, "metrics": _standard(values)}
    return record | {"nonfinite": nonfinite} if nonfinite else record


def _declared(names: Iterable[str]) -> None:
    from trainer.metrics.table import check

    check(names)


class RunFolder:
    """The files of one run; ``check`` raises ValueError for undeclared metric names (default: the table of metrics).

    Of several ranks one may write: the status is left alone by a folder that is not ``writable``.
    """

    def __init__(
        self, path: str | Path, check: Callable[[Iterable[str]], None] = _declared, *, writable: bool = True
    ) -> None:
        self.path = Path(path)
        self.writable = writable
        self.config_file = self.path / "run.yaml"
        self.status_file = self.path / "status.json"
        self.metrics = self.path / "metrics.jsonl"
        self.timings = self.path / "timings.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.reliability = self.path / "reliability.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.mirror = self.path / "mirror.json"
        self.stop = self.path / "STOP"
        self._check = check
        self._behind: dict[str, float] = {}

    def config(self) -> dict[str, Any]:
        """The frozen configuration, exactly as it stands in ``run.yaml``."""
        from yaml import YAMLError

        from trainer import run_yaml

        if not self.config_file.is_file():
            raise ValueError(f"{self.path} holds no run.yaml: give the folder of a run, <output>/runs/<signature>")
        try:
            content = run_yaml.loads(self.config_file.read_text(encoding="utf-8"))
        except (YAMLError, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.config_file} cannot be read, so plan the run again: {reason}") from error
        if not isinstance(content, dict):
            raise ValueError(
                f"{self.config_file} is not a mapping of configuration groups: restore it or plan the run again"
            )
        return {str(key): value for key, value in content.items()}

    def append(self, step: int, metrics: Mapping[str, float], timings: Mapping[str, float], time: float) -> None:
        """Record one step: ``metrics`` are functions of configuration and seed, ``timings`` (time/, throughput/,
        memory/) are not.

        ``time`` is in unix seconds. The line in ``metrics.jsonl`` comes last and commits the step.
        """
        self._check([*metrics, *timings])
        misplaced = [n for n in metrics if n.startswith(MEASURED)] + [n for n in timings if not n.startswith(MEASURED)]
        if misplaced:
            raise ValueError(
                f"metrics {misplaced} are in the wrong file: exactly {', '.join(MEASURED)} belong to the timings"
            )
        timings, self._behind = self._behind | dict(timings), {}
        with self.timing("record"):
            append_records(self.timings, [_metrics_record(step, timings) | {"time": time}])
            append_records(self.metrics, [_metrics_record(step, metrics)])

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the seconds of this block as ``time/<name>_s`` to the next line of timings: for what comes behind a
        step's own line.
        """
        start = time.perf_counter()
        yield
        key = f"time/{name}_s"
        self._behind[key] = self._behind.get(key, 0.0) + time.perf_counter() - start

    def append_samples(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add sampled responses; each row has an integer ``step`` and is a function of configuration and seed."""
        append_records(self.samples, [_standard(row) for row in rows])

    def append_reliability(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add reliability points (step, suite, bin, confidence, accuracy, count)."""
        append_records(self.reliability, [_standard(row) for row in rows])

    def flush(self) -> None:
        """Put everything appended on the disk. Call it before a checkpoint: that far, the record then survives
        anything.
        """
        for path in (self.metrics, self.timings, self.samples, self.reliability):
            if path.exists():
                persist(path)

    def truncate(self, step: int) -> int:
        """Drop what was recorded after ``step`` (-1: everything) and torn last lines; the last step of
        ``metrics.jsonl`` that stays.

        To be called before anything is appended, also on a fresh start. Lines are in step order, so each file is only
        made shorter: atomic, and possible on a full disk.
        """
        last = -1
        for path in (self.metrics, self.timings, self.samples, self.reliability):
            records, length = read_records(path, until=step)
            if path == self.metrics and records:
                last = int(records[-1]["step"])
            if path.exists() and path.stat().st_size > length:
                os.truncate(path, length)
                persist(path)
        return last

    def write_status(
        self, state: str, step: int, steps: int, message: str = "", mlflow_run_id: str | None = None
    ) -> None:
        """Replace ``status.json``. ``mlflow_run_id`` is looked up in the mirror's own file unless given."""
        if state not in STATES:
            raise ValueError(f"state {state!r} is not one of {', '.join(STATES)}")
        if not self.writable:
            return
        mlflow_run_id = mlflow_run_id or self.read_mirror().get("run_id")
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "attempt": self.attempt,
            "mlflow_run_id": mlflow_run_id,
        }
        status = {"state": state, "step": step, "steps": steps, "time": time.time(), "message": message, **who}
        with self.timing("record"):
            write_atomic(self.status_file, json.dumps(status, indent=1) + "\n")

    def read_status(self) -> dict[str, Any] | None:
        """The last status, or None before the first."""
        return _read_object(self.status_file)

    def read_mirror(self) -> dict[str, Any]:
        """What tracking.py remembers: ``token``, ``run_id``, ``step`` and ``time`` of the last point, ``ended`` at the
        end."""
        return _read_object(self.mirror) or {}

    @property
    def attempt(self) -> int:
        """Number of the newest folder under ``attempts/``; 1 when there is none."""
        attempts = self.path / "attempts"
        return max((int(entry.name) for entry in attempts.glob("*") if entry.name.isdigit()), default=1)

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop at the next step boundary.

        The run never removes the file: it stays stopped until whoever wants it to go on does.
        """
        return self.stop.exists()

    @property
    def cancel_requested(self) -> bool:
        """Whether it was a person who did not want it any more (``python -m sweeps cancel`` writes that word)."""
        try:
            return self.stop.read_text().startswith("cancel")
        except FileNotFoundError:
            return False


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}): nothing here writes half a file, so mend or remove it"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object: mend or remove it")
    return content
