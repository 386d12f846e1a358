"""The run folder: everything a run writes down about itself, as plain files. This is the truth; MLflow is a copy.

Must not import torch or mlflow, and must never leave a torn file behind: a failed append is cut off again,
everything else is written beside and renamed. What of it is shared with ``sweeps`` is in ``trainer/contract/``.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.contract.files import persist
from trainer.contract.records import append_records, length_until
from trainer.contract.run_folder import is_cancelled, last_number
from trainer.contract.settings import ConfigError
from trainer.contract.status import Status, read_object, read_status, write_status
from trainer.storage import rollouts

MEASURED = ("time/", "throughput/", "memory/")
"""Prefixes of the metrics that differ from execution to execution; they go to ``timings.jsonl`` only."""


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
        self.contamination = self.path / "contamination.jsonl"
        self.tokens = self.path / "tokens.jsonl"
        tables = (self.samples, self.reliability, self.contamination, self.tokens)
        self._records = (self.metrics, self.timings, *tables)
        self.checkpoints = self.path / "checkpoints"
        self.mirror = self.path / "mirror.json"
        self.stop = self.path / "STOP"
        self._check = check
        self._behind: dict[str, float] = {}

    def require_shape(self) -> None:
        """Raise :class:`ConfigError` where a file stands in the place of a folder, or the other way round."""
        folders = (self.path, self.checkpoints, self.path / "attempts", self.path / rollouts.FOLDER)
        files = (self.config_file, self.status_file, *self._records, self.mirror, self.stop)
        for path in (*folders, *files):
            if path.exists() and path.is_dir() != (path in folders):
                what, instead = ("a folder", "a file") if path in files else ("a file", "a folder")
                raise ConfigError(f"{path} is {what} and should be {instead}: move it away")

    def config(self) -> dict[str, Any]:
        """The frozen configuration, exactly as it stands in ``run.yaml``."""
        from yaml import YAMLError

        from trainer.contract import run_yaml

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

    def append_contamination(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add what of each suite is trained on (step, suite, prompts, overlapping, share, words, example)."""
        append_records(self.contamination, [_standard(row) for row in rows])

    def append_tokens(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add responses of a ledger, token by token; each row has an integer ``step``."""
        append_records(self.tokens, [_standard(row) for row in rows])

    def keep_rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep all responses of ``step``, by the columns of :func:`trainer.storage.rollouts.schema`."""
        rollouts.write_step(self.path, step, rows)

    def flush(self) -> None:
        """Put everything appended on the disk. Call it before a checkpoint: that far, the record then survives
        anything.
        """
        for path in self._records:
            if path.exists():
                persist(path)
        persist(self.path)

    def extent(self) -> dict[str, dict[str, Any]]:
        """Bytes and SHA-256 of each file of the record: what a checkpoint builds on."""
        return {path.name: _extent(path, path.stat().st_size) for path in self._records if path.exists()}

    def lacks(self, extent: Mapping[str, Mapping[str, Any]]) -> str | None:
        """A clause that says which file no longer begins with what :meth:`extent` saw; None if all do."""
        for name, recorded in extent.items():
            path = self.path / name
            size = path.stat().st_size if path.exists() else 0
            if size < recorded["size"]:
                return (
                    f"{path} has {size} bytes instead of {recorded['size']}" if size else f"{path} is missing or empty"
                )
            if _extent(path, recorded["size"]) != recorded:
                return f"{path} was changed"
        return None

    def truncate(self, step: int) -> int:
        """Drop what was recorded after ``step`` (-1: everything) and torn last lines; the last step of
        ``metrics.jsonl`` that stays.

        To be called before anything is appended, also on a fresh start. Lines are in step order, so each file is only
        made shorter: atomic, and possible on a full disk. Of rollouts that are kept whole files go.
        """
        rollouts.forget_after(self.path, step)
        reached = -1
        for path in self._records:
            length, last = length_until(path, step)
            reached = last if path == self.metrics else reached
            if path.exists() and path.stat().st_size > length:
                os.truncate(path, length)
                persist(path)
        return reached

    def write_status(
        self, state: str, step: int, steps: int, message: str = "", mlflow_run_id: str | None = None
    ) -> None:
        """Replace ``status.json``. ``mlflow_run_id`` is looked up in the mirror's own file unless given."""
        if not self.writable:
            return
        who = {"pid": os.getpid(), "host": socket.gethostname(), "attempt": max(1, last_number(self.path))}
        copy = {"mlflow_run_id": mlflow_run_id or self.read_mirror().get("run_id")}
        with self.timing("record"):
            write_status(self.path, state, step=step, steps=steps, message=message or None, **who, **copy)

    def begin_phase(self, phase: str, *, first: bool = False) -> None:
        """Tell whoever watches what the run does from now on, before its first step; ``first`` of this process.

        A job that waits in a queue has begun with phases of its own, which stay.
        """
        status = self.read_status()
        if self.writable and status is not None:
            before = () if first and status.state != "QUEUED" else status.startup
            with contextlib.suppress(OSError):  # nobody needs it
                write_status(self.path, status.state, startup=(*before, (phase, time.time())))

    def read_status(self) -> Status | None:
        """The last status, or None before the first."""
        return read_status(self.path)

    def read_mirror(self) -> dict[str, Any]:
        """What tracking.py remembers: ``token``, ``run_id``, ``step`` and ``time`` of the last point, ``ended`` at the
        end."""
        return read_object(self.mirror, "the MLflow copy is made anew") or {}

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop at the next step boundary.

        The run never removes the file: it stays stopped until whoever wants it to go on does.
        """
        return self.stop.exists()

    @property
    def cancel_requested(self) -> bool:
        """Whether it was a person who did not want it any more (``python -m sweeps cancel`` writes that word)."""
        return is_cancelled(self.path)


def _extent(path: Path, size: int) -> dict[str, Any]:
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return {"size": size, "sha256": digest.hexdigest()}
